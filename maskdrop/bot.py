"""The rules of the Telegram bot: which updates it processes, what a caption means, what it replies.

An update becomes a `Reply` (a text at once), an `ImageRequest` (processed later), both or neither. Formats: the Bot API
10.0, https://core.telegram.org/bots/api. No network here: `Messenger` is the protocol of the Bot API, and
lambdas/bot.py calls these rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from maskdrop.background import background
from maskdrop.colours import NAMES
from maskdrop.errors import ErrorInfo, HostUnavailable, InvalidPreset, MaskdropError
from maskdrop.job import Job
from maskdrop.options import Options
from maskdrop.presets import DEFAULT_PRESET, Presets
from maskdrop.record import Record
from maskdrop.services import Download, Queue, Registry
from maskdrop.settings import read

PREFIX = "MASKDROP_BOT_"
OWNER_PREFIX = "telegram:"
"""Owners of the jobs of chats: telegram:<chat id>."""

API_URL = "https://api.telegram.org"

DOWNLOAD_MAX = 20_000_000
"""Maximum size in bytes of a file that getFile offers to bots: 20 MB."""

UPLOAD_MAX = 50_000_000
"""Maximum size in bytes of a document that a bot sends: 50 MB."""

CAPTION_MAX = 1024
"""Maximum characters of a caption."""

STICKER_PRESET = "sticker"
"""The preset whose results are sent as stickers."""

COMMANDS = ("start", "help", "presets", "sticker")

ALBUM_DELAY_S = 3
"""Seconds before an image of an album without a caption is processed. Telegram sends the updates of an album together,
and the caption belongs to one of them."""

ALBUM_KEPT = timedelta(hours=1)
MINUTE = timedelta(seconds=60)

KINDS = {
    "video": "a video",
    "animation": "an animation",
    "video_note": "a video message",
    "audio": "a sound file",
    "voice": "a voice message",
    "sticker": "a sticker",
    "contact": "a contact",
    "location": "a location",
    "poll": "a poll",
}
"""Contents of messages that are no images, as the end of the sentence "This is …"."""

NOT_IMAGES = ("video/", "audio/")
"""Content types of documents that are rejected without a download. All others are judged by their first bytes."""

HELP = """Send a photo, or an image as a file. The bot returns it without its background, as a PNG with transparency.

Caption:
• the name of a preset: {presets}
• a background colour: white, #ff0000
• sticker: a sticker of 512 px with an outline
Reply to an image with one of these to process it again.

Send images as files for full quality: Telegram makes photos smaller.
Limits: 20 MB for each file, {images} images a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BotSettings:
    """Settings of the bot. `infra` writes them, the function `bot` reads them.

    parameter: name of the SSM parameter with the credentials.
    queue_url: queue of images to process and of results to send.
    api_url: URL of the Bot API server.
    chats: ids of the chats that may use the bot, separated by spaces; "": all.
    messages_per_minute: messages of one chat in a minute.
    images_per_day: images of one chat in a day (UTC).
    """

    parameter: str
    queue_url: str
    api_url: str = API_URL
    chats: str = ""
    messages_per_minute: int = 20
    images_per_day: int = 200

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> BotSettings:
        """Reads MASKDROP_BOT_<FIELD>. Raises InvalidSettings that names every fault."""
        return cls(**read(cls, env, prefix=PREFIX))


@dataclass(frozen=True, slots=True)
class Credentials(Record):
    """The credentials of a bot, as stored in SSM by `maskdrop bot install`.

    token: of the Bot API. secret: that Telegram sends in X-Telegram-Bot-Api-Secret-Token. username: without "@".
    """

    token: str = field(repr=False)
    secret: str = field(repr=False)
    username: str = ""


class ChatUnreachable(MaskdropError):
    """Telegram refuses a message to this chat, for good: the user has blocked the bot, or the chat does not exist.

    moved_to: id of the supergroup that replaces the chat; None for other reasons.
    """

    code, status = "chat_unreachable", 403

    def __init__(self, message: str, moved_to: int | None = None) -> None:
        super().__init__(message)
        self.moved_to = moved_to


class BotThrottled(HostUnavailable):
    """Telegram accepts no more messages for `retry_after` seconds."""

    code = "bot_throttled"

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Place:
    """A message in a chat, to which a message of the bot replies."""

    chat: int
    message: int

    def parameters(self) -> dict[str, Any]:
        """Parameters of the methods send…. The reply is sent even if the message was deleted meanwhile."""
        return {
            "chat_id": self.chat,
            "reply_parameters": {"message_id": self.message, "allow_sending_without_reply": True},
        }


class Messenger(Protocol):
    """The Bot API. Methods raise ChatUnreachable, BotThrottled and HostUnavailable."""

    def send_text(self, place: Place, text: str) -> None: ...

    def send_document(self, place: Place, data: bytes, name: str, content_type: str, caption: str) -> None: ...

    def send_sticker(self, place: Place, data: bytes) -> None:
        """data: a WebP file, one side of 512 px."""

    def download(self, file_id: str) -> Download:
        """Downloads a file that a user sent. Also raises FileTooLarge, EmptyFile, UnsupportedFormat, FailedDownload."""


@dataclass(frozen=True, slots=True)
class Bot:
    """The services of the bot. credentials: reads the credentials, which may change while the function is warm."""

    settings: BotSettings
    credentials: Callable[[], Credentials]
    messenger: Messenger
    queue: Queue


@dataclass(frozen=True, slots=True)
class ImageRequest(Record):
    """An image of a chat to process: the message on the queue of the bot.

    file: id of the file in the Bot API. name: of the file. album: id of its media group, "" without one.
    """

    update: int
    chat: int
    message: int
    file: str
    name: str = "photo.jpg"
    caption: str = ""
    album: str = ""

    @property
    def place(self) -> Place:
        return Place(self.chat, self.message)

    @property
    def owner(self) -> str:
        return f"{OWNER_PREFIX}{self.chat}"

    def key(self, uploads: str) -> str:
        """Key of the uploaded image. It names the message, to which the result replies, and is the same for each
        delivery of the request."""
        return f"{uploads}telegram/{self.update}/{self.message}/{self.name}"


def place_of(job: Job) -> Place:
    """The message to which the result of a job replies. Raises ValueError for a job of another source."""
    match job.source.key.rsplit("/", 4):
        case [_, "telegram", _, message, _] if job.owner.startswith(OWNER_PREFIX):
            return Place(int(job.owner.removeprefix(OWNER_PREFIX)), int(message))
    raise ValueError(f"The job {job.id} has no chat.")


@dataclass(frozen=True, slots=True)
class Response:
    """The bot's response to an update. reply: text to send at once, "" for none."""

    place: Place | None = None
    reply: str = ""
    request: ImageRequest | None = None

    def method(self) -> dict[str, Any] | None:
        """The body of the webhook's response, by which Telegram sends the reply without another call."""
        if not self.reply or self.place is None:
            return None
        return {"method": "sendMessage", "text": self.reply, **self.place.parameters()}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a caption chooses: name and options of a preset, and whether every word was understood."""

    preset: str
    options: Options
    understood: bool = True


def choice_of(caption: str, presets: Presets) -> Choice:
    """Parses a caption: the name of a preset and a background colour, in any order, each optional.

    A caption with any other word chooses nothing: it is an ordinary text. Raises InvalidPreset, TableUnavailable.
    """
    names = {name.lower(): name for name in presets.names()}
    chosen, colour = "", ""
    words = [word.removeprefix("/").lower() for word in caption.replace(",", " ").split() if not word.startswith("@")]
    for word in words:
        if word in names and not chosen:
            chosen = names[word]
        elif (word in NAMES or re.fullmatch(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", word)) and not colour:
            colour = word
        else:
            return Choice(*presets.of(""), understood=False)
    name, options = presets.of(chosen)
    if colour:
        output = replace(options.output, background=background(colour), channels="rgba")
        options = replace(options, output=output)
    return Choice(name, options)


def respond(
    update: Mapping[str, Any],
    username: str,
    settings: BotSettings,
    presets: Presets,
    registry: Registry,
    now: datetime,
) -> Response:
    """Decides about one update. Counts it in the limits of its chat.

    Returns an empty response for an update that needs none. Raises KeyError, TypeError or ValueError for an update that
    is not in the format of the Bot API, TableUnavailable.
    """
    edited = "edited_message" in update
    message = update.get("edited_message") if edited else update.get("message")
    if not isinstance(message, Mapping) or message.get("from", {}).get("is_bot"):
        return Response()
    chat, text = int(message["chat"]["id"]), str(message.get("caption") or message.get("text") or "")
    place = Place(chat, int(message["message_id"]))
    private = message["chat"]["type"] == "private"
    if not (private or _is_addressed(message, text, username)):
        return Response()
    image = _image_of(message)
    if edited and image is None:  # the text had its reply before
        return Response()
    album = str(message.get("media_group_id") or "")
    if refusal := _count_message(chat, settings, registry, now):
        return Response(place, refusal if refusal != SILENT else "")
    if settings.chats and str(chat) not in settings.chats.split():
        return Response(place, f"This bot is private. Its operator can allow the chat {chat}.")
    caption = _without_mention(text, username)
    repeated = message.get("reply_to_message")
    if image is None and isinstance(repeated, Mapping) and (caption or not private) and _understood(caption, presets):
        image = _image_of(repeated)
    if image is None:
        return Response(place, _reply_to_text(message, text, settings, presets))
    if fault := image.fault:
        return Response(place, fault)
    if refusal := _count_image(chat, settings, registry, now):
        return Response(place, refusal if refusal != SILENT else "")
    request = ImageRequest(int(update["update_id"]), chat, place.message, image.file, image.name, caption, album)
    reply = "On its way."
    if not _understood(caption, presets):
        reply += " The caption is not a preset or a colour (/help); the default preset is used."
    if album and not registry.put_new("chat", f"album#{chat}#{album}", {}, expires_at=now + ALBUM_KEPT):
        reply = ""  # one reply for the whole album
    if album and caption:
        registry.put("chat", _caption_of_album(chat, album), {"caption": caption}, expires_at=now + ALBUM_KEPT)
    return Response(place, reply, request)


def _understood(caption: str, presets: Presets) -> bool:
    """Whether a caption chooses a preset or a colour, or is empty. An invalid preset fails later, with its reason."""
    try:
        return choice_of(caption, presets).understood
    except InvalidPreset:
        return True


def caption_of(request: ImageRequest, registry: Registry) -> str:
    """The caption of an image; that of its album where it has none. Raises TableUnavailable."""
    if request.caption or not request.album:
        return request.caption
    stored = registry.get("chat", _caption_of_album(request.chat, request.album)) or {}
    return str(stored.get("caption", ""))


def _caption_of_album(chat: int, album: str) -> str:
    return f"caption#{chat}#{album}"


SILENT = "silent"
"""The refusal of a message after the first one above a limit: a flood of messages gets no flood of replies."""


def _count_message(chat: int, settings: BotSettings, registry: Registry, now: datetime) -> str:
    """Returns the refusal of a message above the limit of a minute; "" within it."""
    ends = now.replace(microsecond=0) + MINUTE
    count = registry.add("window", f"{OWNER_PREFIX}{chat}", {"calls": 1}, expires_at=ends).counters["calls"]
    limit = settings.messages_per_minute
    if count <= limit:
        return ""
    return f"The limit is {limit} messages a minute. Wait a minute." if count == limit + 1 else SILENT


def _count_image(chat: int, settings: BotSettings, registry: Registry, now: datetime) -> str:
    """Returns the refusal of an image above the limit of a day; "" within it."""
    today = now.astimezone(UTC)
    ends = datetime(today.year, today.month, today.day, tzinfo=UTC) + timedelta(days=1)
    name = f"{OWNER_PREFIX}{chat}#{today:%Y-%m-%d}"
    count = registry.add("window", name, {"images": 1}, expires_at=ends).counters["images"]
    limit = settings.images_per_day
    if count <= limit:
        return ""
    return f"The limit is {limit} images a day. Send more after 00:00 UTC." if count == limit + 1 else SILENT


@dataclass(frozen=True, slots=True)
class _Image:
    """An image of a message. fault: why it cannot be processed; "" if it can."""

    file: str = ""
    name: str = "photo.jpg"
    fault: str = ""


def _image_of(message: Mapping[str, Any]) -> _Image | None:
    """The largest size of a photo, or a document that may be an image; None for other messages."""
    if message.get("animation"):  # Telegram adds a document to it
        return None
    if sizes := message.get("photo"):
        largest = max(sizes, key=lambda size: (int(size["width"]) * int(size["height"]), int(size.get("file_size", 0))))
        return _Image(str(largest["file_id"]), fault=_too_large(largest))
    document = message.get("document")
    if not isinstance(document, Mapping):
        return None
    name = re.sub(r"[^\w.-]+", "_", str(document.get("file_name") or "image")).strip("._")[-64:] or "image"
    if str(document.get("mime_type", "")).startswith(NOT_IMAGES):
        return _Image(fault="This file is not an image. Send a photo, or an image as a file.")
    return _Image(str(document["file_id"]), name, _too_large(document))


def _too_large(file: Mapping[str, Any]) -> str:
    size = int(file.get("file_size") or 0)
    if size <= DOWNLOAD_MAX:
        return ""
    return f"The file has {size / 1e6:.1f} MB. Telegram gives bots files of at most 20 MB; send a smaller one."


def _is_addressed(message: Mapping[str, Any], text: str, username: str) -> bool:
    """Whether a message in a group is for the bot: it mentions the bot, is one of its commands, or replies to it."""
    author = message.get("reply_to_message", {}).get("from", {})
    if username and str(author.get("username", "")).lower() == username.lower():
        return True
    if username and re.search(rf"@{re.escape(username)}\b", text, re.IGNORECASE):
        return True
    command = re.match(r"/(\w+)(@\w+)?(\s|$)", text)
    return bool(command and not command[2] and command[1].lower() in COMMANDS)


def _without_mention(text: str, username: str) -> str:
    return re.sub(rf"@{re.escape(username)}\b", " ", text, flags=re.IGNORECASE).strip() if username else text.strip()


def _reply_to_text(message: Mapping[str, Any], text: str, settings: BotSettings, presets: Presets) -> str:
    """The reply to a message without an image."""
    names = [name for name in presets.names() if name != DEFAULT_PRESET]
    command = text.split("@")[0].split()[0].removeprefix("/").lower() if text.startswith("/") else ""
    if command == "presets":
        return "\n".join(["Presets, for the caption of an image:", *(f"• {name}" for name in names)])
    if command == "sticker":
        return "Send an image with the caption sticker, or reply to an image with /sticker."
    if command in COMMANDS:
        return HELP.format(presets=", ".join(names), images=settings.images_per_day)
    if kind := next((name for key, name in KINDS.items() if message.get(key)), ""):
        return f"This is {kind}. Send a photo, or an image as a file."
    return "Send a photo, or an image as a file. /help lists the options."


def caption_of_result(job: Job) -> str:
    """The caption of a result: what the user should check; "" for an ordinary result."""
    subject = job.subject
    if subject and subject.needs_review:
        return f"Check the edges: the score of this result is {subject.score:.0%}."
    return ""


NO_SUBJECT = "No subject was found in this image. Try another preset (/presets), or an image with a clearer subject."

SERVER_ERROR = "The image could not be processed (server error). Send it again later."


def has_subject(job: Job) -> bool:
    return job.subject is None or job.subject.box is not None


def text_of_error(error: ErrorInfo | None) -> str:
    """The text for the error of a job or of a download. Details of server errors are not for users."""
    if error is None or error.retryable or error.code in ("gave_up", "internal", "not_allowed"):
        return SERVER_ERROR
    return f"{error.message} ({error.code})"[:CAPTION_MAX]
