"""The adapter of the Bot API, against the local stub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from lambdas.adapters.fetch import PublicWeb
from lambdas.adapters.telegram import FRESH_S, Parameter, Telegram
from maskdrop.bot import BotThrottled, ChatUnreachable, Credentials, Place
from maskdrop.errors import BlockedUrl, FailedDownload, FileTooLarge, HostUnavailable, MaskdropError, UnsupportedFormat
from maskdrop.ssrf import Policy
from tests.bot_api import RunningBotApi, running_bot_api
from tests.unit.cli.aws import Error, FakeAws

TOKEN = "12345:" + "t0ken" * 7
PLACE = Place(7, 101)
JPEG = b"\xff\xd8\xff\xe0 a photo"


@pytest.fixture(scope="module")
def started() -> Iterator[RunningBotApi]:
    with running_bot_api() as running:
        yield running


@pytest.fixture
def api(started: RunningBotApi) -> Iterator[RunningBotApi]:
    yield started
    started.control()


def telegram(api: RunningBotApi, token: str = TOKEN) -> Telegram:
    return Telegram(PublicWeb(Policy(trusted=frozenset({"localhost"}))), api.url, lambda: token)


def last_sent(api: RunningBotApi) -> dict[str, Any]:
    sent: dict[str, Any] = api.control()["sent"][-1]
    return sent


def test_texts_documents_and_stickers_reply_to_a_message(api: RunningBotApi) -> None:
    telegram(api).send_text(PLACE, "On its way: ü")
    text = last_sent(api)
    assert (text["method"], text["chat_id"], text["text"]) == ("sendMessage", 7, "On its way: ü")
    assert text["reply_parameters"] == {"message_id": 101, "allow_sending_without_reply": True}
    telegram(api).send_document(PLACE, b"\0\r\n--x", "cut out ü.png", "image/png", "Check the edges.")
    document = last_sent(api)
    assert (document["method"], document["name"], document["type"]) == ("sendDocument", "cut out ü.png", "image/png")
    assert document["sha256"] == hashlib.sha256(b"\0\r\n--x").hexdigest()
    assert (document["caption"], document["disable_content_type_detection"]) == ("Check the edges.", "true")
    assert json.loads(document["reply_parameters"])["message_id"] == 101
    telegram(api).send_sticker(PLACE, b"webp")
    assert (last_sent(api)["method"], last_sent(api)["type"]) == ("sendSticker", "image/webp")


def test_a_file_of_a_user_is_downloaded_and_identified(api: RunningBotApi) -> None:
    download = telegram(api).download(api.upload(JPEG))
    assert (download.body, download.content_type) == (JPEG, "image/jpeg")


@pytest.mark.parametrize(
    ("body", "error"), [(b"\0\0\0\x18ftypmp42", UnsupportedFormat), (b"\xff\xd8\xff" + bytes(20_000_000), FileTooLarge)]
)
def test_a_video_and_a_file_above_20_mb_are_refused(
    api: RunningBotApi, body: bytes, error: type[MaskdropError]
) -> None:
    with pytest.raises(error):
        telegram(api).download(api.upload(body))


def test_an_unknown_file_has_to_be_sent_again(api: RunningBotApi) -> None:
    with pytest.raises(FailedDownload, match="Send it again"):
        telegram(api).download("none")


@pytest.mark.parametrize("path", ["../secret", "/etc", "a//b", "a/../b", "http://x", "a?b", ""])
def test_a_path_that_leaves_the_folder_of_the_token_is_refused(
    api: RunningBotApi, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bot = telegram(api)
    monkeypatch.setattr(bot, "call", lambda *_: {"file_path": path})
    with pytest.raises(FailedDownload, match="invalid path"):
        bot.download("file")


def test_a_throttled_call_states_when_to_repeat_it(api: RunningBotApi) -> None:
    api.control(sendMessage=[429])
    with pytest.raises(BotThrottled) as raised:
        telegram(api).send_text(PLACE, "hello")
    assert raised.value.retry_after == 1


def test_a_blocked_bot_is_final_and_other_errors_are_retryable(api: RunningBotApi) -> None:
    api.control(sendDocument=[403], sendMessage=[502])
    with pytest.raises(ChatUnreachable, match="blocked by the user"):
        telegram(api).send_document(PLACE, b"x", "x.png", "image/png", "")
    with pytest.raises(HostUnavailable, match="status 502"):
        telegram(api).send_text(PLACE, "hello")


def test_no_error_contains_the_token(api: RunningBotApi) -> None:
    secret = "no token of the right form"
    with pytest.raises(HostUnavailable, match="Unauthorized") as raised:
        telegram(api, secret).send_text(PLACE, "hello")
    assert secret not in str(raised.value)
    web = PublicWeb(Policy())
    with pytest.raises(BlockedUrl) as blocked:
        Telegram(web, "http://10.0.0.1", lambda: TOKEN).send_text(PLACE, "hello")
    assert TOKEN not in str(blocked.value)
    gone = Telegram(PublicWeb(Policy(trusted=frozenset({"localhost"}))), "http://localhost:1", lambda: TOKEN)
    with pytest.raises(HostUnavailable) as unavailable:
        gone.send_text(PLACE, "hello")
    assert TOKEN not in str(unavailable.value)


def test_credentials_are_cached_for_a_minute() -> None:
    values, clock = ["one", "two"], [0.0]

    def parameter(request: dict[str, Any]) -> dict[str, Any]:
        assert request == {"Name": "/maskdrop/bot", "WithDecryption": True}
        secret = values.pop(0)
        return {"Parameter": {"Value": json.dumps({"token": TOKEN, "secret": secret, "username": "shop_bot"})}}

    aws = FakeAws({"ssm.GetParameter": parameter})
    stored = Parameter(aws.client("ssm"), "/maskdrop/bot", lambda: clock[0])
    assert stored.read() == stored.read() == Credentials(TOKEN, "one", "shop_bot")
    clock[0] = FRESH_S
    assert stored.read().secret == "two"


@pytest.mark.parametrize("value", ["no JSON", "[]", f'{{"token": "{TOKEN}"}}'])
def test_an_invalid_or_missing_parameter_is_named_without_its_value(value: str) -> None:
    aws = FakeAws({"ssm.GetParameter": {"Parameter": {"Value": value}}})
    with pytest.raises(HostUnavailable, match="/maskdrop/bot is invalid") as raised:
        Parameter(aws.client("ssm"), "/maskdrop/bot").read()
    assert TOKEN not in str(raised.value)
    aws = FakeAws({"ssm.GetParameter": Error("ParameterNotFound")})
    with pytest.raises(HostUnavailable, match="ParameterNotFound"):
        Parameter(aws.client("ssm"), "/maskdrop/bot").read()
