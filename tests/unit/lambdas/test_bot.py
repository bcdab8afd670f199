"""The Telegram bot: a scripted chat from the webhook to the result, with fakes of AWS and of the Bot API."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from lambdas import dead_letters
from lambdas.bot import process_messages, process_webhook
from maskdrop import bot as rules
from maskdrop.background import background as parse_background
from maskdrop.bot import (
    ALBUM_DELAY_S,
    DOWNLOAD_MAX,
    NO_SUBJECT,
    SERVER_ERROR,
    Bot,
    BotSettings,
    BotThrottled,
    ChatUnreachable,
    Credentials,
    Place,
)
from maskdrop.errors import ErrorInfo, HostUnavailable, QueueUnavailable, TableUnavailable
from maskdrop.job import Job, Result, Subject
from maskdrop.webhook import RETRY_S, event_of
from tests.fakes import NOW, FakeDeadLetters, FakeMessenger, FakeQueue, World
from tests.unit.lambdas.test_record import sqs

TOKEN, SECRET, USERNAME = "12345:" + "t0ken" * 7, "s3cret" * 5, "shop_bot"
JPEG, PNG, MP4 = b"\xff\xd8\xff\xe0 a photo", b"\x89PNG\r\n\x1a\n a file", b"\0\0\0\x18ftypmp42 a video"
CHAT = 7
SETTINGS = BotSettings(parameter="/maskdrop/bot", queue_url="https://sqs/bot")


@dataclass
class Chat:
    """A chat with the bot. Runs the queue of the bot and finishes the jobs on request."""

    world: World = field(default_factory=World)
    messenger: FakeMessenger = field(default_factory=FakeMessenger)
    queue: FakeQueue = field(default_factory=FakeQueue)
    settings: BotSettings = SETTINGS
    secret: str = SECRET
    updates: int = 0
    now: datetime = NOW

    @property
    def bot(self) -> Bot:
        return Bot(self.settings, lambda: Credentials(TOKEN, self.secret, USERNAME), self.messenger, self.queue)

    def message(self, content: Any = None, **fields: Any) -> dict[str, Any]:
        """Returns the next update, with one message of these fields."""
        self.updates += 1
        of_chat = {"message_id": 100 + self.updates, "chat": {"id": CHAT, "type": "private"}, "date": 0}
        message = {**of_chat, **(content or {}), **fields}
        return {"update_id": self.updates, "message": message}

    def photo(self, caption: str = "", body: bytes = JPEG, **content: Any) -> dict[str, Any]:
        """Returns an update with a photo in three sizes, of which the largest can be downloaded."""
        name = f"file-{self.updates}"
        self.messenger.files[name] = body
        sizes = [
            {"file_id": file, "width": side, "height": side, "file_size": side}
            for file, side in (("small", 90), (name, 1280), ("medium", 320))
        ]
        return self.message({"photo": sizes, **({"caption": caption} if caption else {}), **content})

    def document(self, body: bytes = PNG, size: int = 1000, **document: Any) -> dict[str, Any]:
        name = f"file-{self.updates}"
        self.messenger.files[name] = body
        return self.message(document={"file_id": name, "file_name": "a b.png", "file_size": size, **document})

    def post(self, update: Any, secret: str | None = SECRET) -> dict[str, Any]:
        """Posts an update to the webhook and returns the proxy response."""
        headers = {} if secret is None else {"X-Telegram-Bot-Api-Secret-Token": secret}
        event = {"headers": headers, "body": update if isinstance(update, str) else json.dumps(update)}
        return process_webhook(event, self.world.services, self.bot, self.now)

    def reply(self, update: Any) -> str:
        """Posts an update and returns the text of the reply; "" without one."""
        response = self.post(update)
        assert response["statusCode"] == 200
        return str(json.loads(response["body"]).get("text", ""))

    def work(self, attempt: int = 1) -> list[str]:
        """Processes all messages on the queue of the bot. Returns those that are retried."""
        sent, self.queue.sent = self.queue.sent, []
        returned = []
        for body, _ in sent:
            event = sqs(body)
            event["Records"][0] |= {
                "attributes": {"ApproximateReceiveCount": str(attempt)},
                "receiptHandle": "receipt",
            }
            outcome = process_messages(event, self.world.settings, self.world.services, self.bot, self.now)
            returned += [body for _ in outcome["batchItemFailures"]]
        return returned

    def jobs(self) -> list[Job]:
        return sorted(self.world.jobs.records.values(), key=lambda job: job.source.key)

    def finish(self, job: Job, *, data: bytes = b"a cut-out", **changes: Any) -> None:
        """Finishes a job and puts its event on the queue of the bot."""
        extension = job.options.extension
        result = Result("results-bucket", f"results/jobs/x/{job.id}.{extension}", 4, 4, len(data), "ab", extension)
        self.world.storage.objects[result.bucket, result.key] = data
        subject = Subject((0, 0, 2, 2), 0.5, 0.9)
        done = replace(job, state="done", result=result, subject=subject, finished_at=self.now, bundle="b")
        self.queue.sent.append((json.dumps({"detail": event_of(replace(done, **changes))}), 0))


@pytest.fixture
def chat() -> Chat:
    return Chat()


def test_a_photo_comes_back_as_a_document_that_replies_to_it(chat: Chat) -> None:
    response = json.loads(chat.post(chat.photo())["body"])
    assert response["method"] == "sendMessage"
    assert response["text"] == "On its way."
    assert (response["chat_id"], response["reply_parameters"]["message_id"]) == (CHAT, 101)
    assert chat.messenger.downloads == []  # the webhook does not wait for the download
    assert chat.work() == []
    assert chat.messenger.downloads == ["file-0"]  # the largest size
    [job] = chat.jobs()
    assert (job.owner, job.preset, job.state) == ("telegram:7", "default", "queued")
    assert [json.loads(body)["job_id"] for body, _ in chat.world.queue.sent] == [job.id]
    assert chat.world.storage.read(job.source.bucket, job.source.key) == JPEG
    chat.finish(job)
    assert chat.work() == []
    assert chat.messenger.sent == [
        ("document", Place(CHAT, 101), ("photo.png", b"a cut-out", "image/png", "")),
    ]


def test_a_scripted_chat_of_30_updates(chat: Chat) -> None:
    """Duplicates, floods, stickers, a forged token, other contents, an album, groups, Telegram's errors."""
    group = chat.photo()
    group["message"]["chat"] = {"id": -5, "type": "group"}
    first, album = chat.photo(), [chat.photo("webp", media_group_id="g"), chat.photo(media_group_id="g")]
    video = chat.message({"video": {"file_id": "v"}})
    script: list[tuple[str, Any, str]] = [
        ("a photo", first, "On its way."),
        ("its duplicate", first, "On its way."),
        ("a preset", chat.photo("webp"), "On its way."),
        ("a colour", chat.photo("#ff0000"), "On its way."),
        ("a sticker", chat.photo("/sticker"), "On its way."),
        ("a caption", chat.photo("my dog"), "On its way. The caption"),
        ("an album", album[0], "On its way."),
        ("its second image", album[1], ""),
        ("a document", chat.document(), "On its way."),
        ("a video as a document", chat.document(body=MP4), "On its way."),
        ("a huge document", chat.document(size=25_000_000), "The file has 25.0 MB."),
        ("a video", video, "This is a video."),
        ("a text", chat.message({"text": "hello"}), "Send a photo"),
        ("help", chat.message({"text": "/help"}), "Send a photo, or an image as a file. The bot"),
        ("presets", chat.message({"text": "/presets"}), "Presets"),
        ("a group, not addressed", group, ""),
        ("no message", {"update_id": 1000, "poll": {}}, ""),
        *((f"flood {number}", chat.photo(), "On its way.") for number in range(6)),
        ("flood, first refusal", chat.photo(), "The limit is 20 messages a minute."),
        *((f"flood {number}", chat.photo(), "") for number in range(5)),
    ]
    assert chat.post(chat.photo(), "forged")["statusCode"] == 403
    assert len(script) + 1 == 30
    for name, update, expected in script:
        reply = chat.reply(update)
        assert reply.startswith(expected), name
        assert bool(reply) == bool(expected), name
    assert chat.work() == []
    jobs = chat.jobs()
    assert len(jobs) == 14  # 1 photo, 4 captions, 2 of the album, 1 document, 6 of the flood
    assert sorted(job.preset for job in jobs) == ["default"] * 10 + ["sticker"] + ["webp"] * 3
    [(_, _, refusal)] = chat.messenger.sent
    assert "is a video (MP4). (unsupported_format)" in refusal
    for job in jobs:
        chat.finish(job)
    chat.messenger.errors = [BotThrottled("wait", 3), ChatUnreachable("blocked"), HostUnavailable("502")]
    for body in chat.work():
        chat.queue.sent.append((body, 0))
    chat.work()
    methods = [method for method, _, _ in chat.messenger.sent[1:]]
    assert (methods.count("sticker"), len(methods)) == (1, 13)  # one user has blocked the bot; nothing else is lost


def test_a_duplicate_update_gets_the_same_reply_and_is_processed_once(chat: Chat) -> None:
    update = chat.photo()
    first = chat.post(update)
    assert chat.post(update) == first
    assert len(chat.queue.sent) == 1
    chat.queue.sent *= 2  # SQS delivers a message at least once
    chat.work()
    [job] = chat.jobs()
    assert chat.messenger.downloads == ["file-0"]
    chat.finish(job)
    chat.finish(job)
    chat.work()
    assert len(chat.messenger.sent) == 1


@pytest.mark.parametrize("secret", [None, "", "forged", SECRET[:-1], SECRET + "x", "é"])
def test_a_forged_secret_token_is_refused_without_a_trace(chat: Chat, secret: str | None) -> None:
    assert chat.post(chat.photo(), secret)["statusCode"] == 403
    assert (chat.queue.sent, chat.world.registry.items) == ([], {})


def test_an_empty_stored_secret_refuses_every_update(chat: Chat) -> None:
    chat.secret = ""
    assert chat.post(chat.photo(), "")["statusCode"] == 403


@pytest.mark.parametrize("body", ["", "no JSON", "[]", "{}", '{"update_id": "x"}', '{"update_id": 1, "message": {}}'])
def test_an_unreadable_update_is_not_repeated_by_telegram(chat: Chat, body: str) -> None:
    chat.post(body)
    assert chat.queue.sent == []


def test_an_update_is_repeated_by_telegram_while_aws_is_unavailable(chat: Chat) -> None:
    update = chat.photo()
    chat.queue.broken = QueueUnavailable("SQS is unavailable.")
    assert chat.post(update)["statusCode"] == 503
    chat.queue.broken = None
    assert chat.reply(update) == "On its way."
    chat.world.registry.broken = TableUnavailable("DynamoDB is unavailable.")
    assert chat.post(chat.photo())["statusCode"] == 503


@pytest.mark.parametrize("command", ["/start", "/help", "/help@shop_bot now"])
def test_help_names_presets_and_limits(chat: Chat, command: str) -> None:
    text = chat.reply(chat.message(text=command))
    assert "webp" in text
    assert "200 images a day" in text
    assert chat.queue.sent == []


def test_texts_and_other_contents_get_a_reply_of_their_kind(chat: Chat) -> None:
    chat.world.registry.put("preset", "shoes", {"output": {"format": "webp"}})
    assert "• shoes" in chat.reply(chat.message(text="/presets"))
    assert "caption sticker" in chat.reply(chat.message(text="/sticker"))
    assert chat.reply(chat.message(text="hello")).startswith("Send a photo")
    for name in ("video", "voice", "sticker"):
        assert f"This is {rules.KINDS[name]}." in chat.reply(chat.message({name: {"file_id": "x"}}))
    assert "an animation" in chat.reply(chat.message(animation={"file_id": "x"}, document={"file_id": "x"}))
    assert chat.queue.sent == []


@pytest.mark.parametrize(
    ("caption", "preset", "background", "extension"),
    [
        ("webp", "webp", None, "webp"),
        ("WebP", "webp", None, "webp"),
        ("white", "default", "white", "png"),
        ("#ff0000", "default", "#ff0000", "png"),
        ("webp, #F00", "webp", "#ff0000", "webp"),
        ("/sticker", "sticker", None, "webp"),
        ("My white dog", "default", None, "png"),
        ("", "default", None, "png"),
    ],
)
def test_a_caption_chooses_a_preset_and_a_background(
    chat: Chat, caption: str, preset: str, background: str | None, extension: str
) -> None:
    reply = chat.reply(chat.photo(caption))
    assert ("not a preset" in reply) == (caption == "My white dog")
    chat.work()
    [job] = chat.jobs()
    assert (job.preset, job.options.extension) == (preset, extension)
    expected = parse_background(background) if background else None
    assert job.options.output.background == expected


def test_the_preset_sticker_is_sent_as_a_sticker_and_a_large_one_as_a_document(chat: Chat) -> None:
    chat.post(chat.photo("sticker"))
    chat.work()
    [job] = chat.jobs()
    chat.finish(job, data=b"webp")
    chat.work()
    chat.finish(job, data=b"w" * 600_000, bundle="another")
    chat.work()
    assert [method for method, _, _ in chat.messenger.sent] == ["sticker", "document"]


def test_a_document_is_judged_by_its_first_bytes(chat: Chat) -> None:
    assert chat.reply(chat.document(mime_type="application/octet-stream")) == "On its way."
    assert chat.reply(chat.document(body=MP4, mime_type="image/png")) == "On its way."
    assert "not an image" in chat.reply(chat.document(mime_type="video/mp4"))
    assert len(chat.queue.sent) == 2
    assert chat.work() == []
    [(method, place, text)] = chat.messenger.sent
    assert (method, place) == ("text", Place(CHAT, 102))
    assert "unsupported_format" in text
    [job] = chat.jobs()
    assert job.source.key.endswith("/telegram/1/101/a_b.png")


def test_a_file_above_the_limit_of_getfile_is_refused_at_once(chat: Chat) -> None:
    assert "20.0 MB" in chat.reply(chat.document(size=DOWNLOAD_MAX + 1))
    assert chat.queue.sent == []


@pytest.mark.parametrize("name", ["../../inbox/x.jpg", "/etc/passwd", "..", "a/b/telegram/1/2/c.jpg", "ü💥.png", ""])
def test_the_name_of_a_document_stays_within_its_folder(chat: Chat, name: str) -> None:
    chat.post(chat.document(file_name=name))
    chat.work()
    [job] = chat.jobs()
    assert job.source.key.split("/")[2:5] == ["telegram", "1", "101"]
    assert len(job.source.key.split("/")) == 6
    assert rules.place_of(job) == Place(CHAT, 101)


def test_every_image_of_an_album_has_the_caption_and_one_reply(chat: Chat) -> None:
    updates = [chat.photo(media_group_id="g1") for _ in range(3)]
    updates[1]["message"]["caption"] = "webp"
    assert [chat.reply(update) for update in updates] == ["On its way.", "", ""]
    assert [delay_s for _, delay_s in chat.queue.sent] == [ALBUM_DELAY_S, 0, ALBUM_DELAY_S]
    chat.work()
    assert [job.preset for job in chat.jobs()] == ["webp"] * 3


def test_an_edited_image_is_processed_again_and_an_edited_text_gets_no_reply(chat: Chat) -> None:
    chat.post(chat.photo())
    edited = chat.photo("webp")
    edited["edited_message"] = {**edited.pop("message"), "message_id": 101}
    assert chat.reply(edited) == "On its way."
    text = chat.message(text="hello")
    assert chat.reply({"update_id": 99, "edited_message": text["message"]}) == ""
    chat.work()
    assert [job.preset for job in chat.jobs()] == ["default", "webp"]


def test_a_reply_to_an_image_processes_it_again(chat: Chat) -> None:
    image = chat.photo()["message"]
    assert chat.reply(chat.message(text="/sticker", reply_to_message=image)) == "On its way."
    assert chat.reply(chat.message(text="nice!", reply_to_message=image)).startswith("Send a photo")
    chat.work()
    assert [job.preset for job in chat.jobs()] == ["sticker"]


def test_in_a_group_only_messages_for_the_bot_are_processed(chat: Chat) -> None:
    def in_group(update: dict[str, Any]) -> str:
        update["message"]["chat"]["type"] = "supergroup"
        return chat.reply(update)

    image = chat.photo()["message"]
    assert in_group(chat.photo()) == ""
    assert in_group(chat.message(text="hello")) == ""
    assert in_group(chat.message(text="/start@another_bot")) == ""
    assert in_group(chat.message(text="/unknown")) == ""
    assert chat.world.registry.items.keys() == {key for key in chat.world.registry.items if key[0] == "idempotency"}
    assert in_group(chat.photo("@Shop_Bot webp")) == "On its way."
    assert in_group(chat.message(text="@shop_bot", reply_to_message=image)) == "On its way."
    assert "webp" in in_group(chat.message(text="/presets@shop_bot"))
    mine = {"from": {"username": USERNAME, "is_bot": True}, "message_id": 5, "text": "On its way."}
    assert in_group(chat.photo(reply_to_message=mine)) == "On its way."
    chat.work()
    assert [job.preset for job in chat.jobs()] == ["webp", "default", "default"]


def test_messages_of_bots_and_other_updates_need_no_response(chat: Chat) -> None:
    of_bot = chat.photo()
    of_bot["message"]["from"] = {"is_bot": True}
    assert chat.reply(of_bot) == ""
    assert chat.reply({"update_id": 50, "my_chat_member": {}}) == ""
    assert chat.queue.sent == []


def test_a_flood_gets_one_refusal_and_its_images_are_not_processed(chat: Chat) -> None:
    replies = [chat.reply(chat.photo()) for _ in range(25)]
    assert replies[:20] == ["On its way."] * 20
    assert "20 messages a minute" in replies[20]
    assert replies[21:] == [""] * 4
    assert len(chat.queue.sent) == 20
    assert chat.reply(chat.photo() | {"update_id": 900}) == ""
    chat.world.registry.now = chat.now = NOW + timedelta(seconds=61)
    assert chat.reply(chat.photo()) == "On its way."


def test_the_images_of_a_day_are_limited_and_other_chats_are_not_affected(chat: Chat) -> None:
    chat.settings = replace(chat.settings, images_per_day=2)
    replies = [chat.reply(chat.photo()) for _ in range(4)]
    assert "2 images a day" in replies[2]
    assert replies[3] == ""
    other = chat.photo()
    other["message"]["chat"]["id"] = 8
    assert chat.reply(other) == "On its way."
    assert chat.reply(chat.message(text="/help"))  # texts are not images
    chat.world.registry.now = chat.now = NOW + timedelta(days=1)
    assert chat.reply(chat.photo()) == "On its way."


def test_chats_that_are_not_allowed_get_their_id(chat: Chat) -> None:
    chat.settings = replace(chat.settings, chats="1 -100123")
    assert chat.reply(chat.photo()) == "This bot is private. Its operator can allow the chat 7."
    allowed = chat.photo()
    allowed["message"]["chat"]["id"] = 1
    assert chat.reply(allowed) == "On its way."
    assert len(chat.queue.sent) == 1


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"subject": Subject(None, 0.0, 0.0)}, NO_SUBJECT),
        (
            {"state": "failed", "error": ErrorInfo("resolution_too_high", "The image has 90 MP.")},
            "The image has 90 MP.",
        ),
        ({"state": "failed", "error": ErrorInfo("gave_up", "Internal details.")}, SERVER_ERROR),
        ({"state": "failed", "error": ErrorInfo("x", "Internal details.", retryable=True)}, SERVER_ERROR),
    ],
)
def test_a_result_without_a_subject_and_a_failed_job_are_texts(chat: Chat, changes: dict[str, Any], text: str) -> None:
    chat.post(chat.photo())
    chat.work()
    chat.finish(chat.jobs()[0], **changes)
    chat.work()
    [(method, place, sent)] = chat.messenger.sent
    assert (method, place) == ("text", Place(CHAT, 101))
    assert sent.startswith(text)


def test_a_result_that_needs_a_review_has_a_caption(chat: Chat) -> None:
    chat.post(chat.photo())
    chat.work()
    chat.finish(chat.jobs()[0], subject=Subject((0, 0, 2, 2), 0.5, 0.41, needs_review=True))
    chat.work()
    assert chat.messenger.sent[0][2][3] == "Check the edges: the score of this result is 41%."


def test_a_result_that_telegram_does_not_accept_is_a_link(chat: Chat) -> None:
    chat.post(chat.photo())
    chat.work()
    [job] = chat.jobs()
    large = Result("results-bucket", "results/jobs/x/large.png", 9, 9, 60_000_000, "ab", "png")
    chat.finish(job, result=large)
    chat.work()
    [(method, _, text)] = chat.messenger.sent
    assert method == "text"
    assert "https://results-bucket/results/jobs/x/large.png?valid=3600" in text


def test_a_throttled_result_is_sent_later_as_a_new_message(chat: Chat) -> None:
    chat.post(chat.photo())
    chat.work()
    chat.finish(chat.jobs()[0])
    body = chat.queue.sent[0][0]
    chat.messenger.errors = [BotThrottled("The Bot API accepts no more calls for 30 s.", 30)]
    assert chat.work() == []
    assert chat.queue.sent == [(body, 30)]
    chat.work()
    assert len(chat.messenger.sent) == 1


def test_a_blocked_bot_ends_without_a_retry(chat: Chat) -> None:
    chat.post(chat.photo())
    chat.work()
    chat.finish(chat.jobs()[0])
    chat.messenger.errors = [ChatUnreachable("sendDocument: Forbidden: bot was blocked by the user")]
    assert chat.work() == []
    assert (chat.queue.sent, chat.queue.hidden, chat.messenger.sent) == ([], [], [])


def test_a_group_that_became_a_supergroup_gets_its_result(chat: Chat) -> None:
    chat.post(chat.photo())
    chat.work()
    chat.finish(chat.jobs()[0])
    chat.messenger.errors = [ChatUnreachable("group chat was upgraded", moved_to=-1001)]
    chat.work()
    assert chat.messenger.sent[0][1] == Place(-1001, 101)


def test_an_outage_of_the_bot_api_is_retried_with_backoff_and_loses_nothing(chat: Chat) -> None:
    chat.post(chat.photo())
    request = chat.queue.sent
    outage = HostUnavailable("api.telegram.org did not respond in time.")
    for attempt in range(1, len(RETRY_S) + 1):
        chat.queue.sent, chat.messenger.errors = list(request), [outage]
        assert len(chat.work(attempt)) == 1
    assert chat.queue.hidden == [("receipt", seconds) for seconds in RETRY_S]
    chat.queue.sent = list(request)
    assert chat.work() == []
    assert len(chat.jobs()) == 1


def test_after_the_last_attempt_the_user_is_told_and_the_dead_letter_counted(
    chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    chat.post(chat.photo())
    bodies = [body for body, _ in chat.queue.sent]
    chat.messenger.errors = [HostUnavailable("api.telegram.org did not respond in time.")]
    assert len(chat.work(attempt=len(RETRY_S) + 1)) == 1
    assert chat.messenger.sent == [("text", Place(CHAT, 101), SERVER_ERROR)]
    chat.post(chat.photo())
    chat.work()
    chat.finish(chat.jobs()[0])
    bodies += [body for body, _ in chat.queue.sent]
    letters = FakeDeadLetters(bodies)
    world = chat.world
    assert dead_letters.process(letters, world.settings, world.services, NOW) == {"deleted": 2, "failed": 0}
    assert capsys.readouterr().out.count("bot message failed") == 2


def test_no_log_line_contains_the_token_or_the_secret(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    chat.post(chat.photo("a private caption"))
    chat.post(chat.photo(), "forged")
    chat.messenger.errors = [HostUnavailable("api.telegram.org did not respond in time.")]
    chat.work()
    logged = capsys.readouterr().out
    assert "update refused" in logged
    assert TOKEN not in logged
    assert SECRET not in logged
    assert "private caption" not in logged
    assert TOKEN not in repr(chat.bot.credentials())
