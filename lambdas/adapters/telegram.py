"""Calls the Bot API of Telegram (https://core.telegram.org/bots/api), and reads the credentials of the bot.

The token is a part of every URL. No error message or log line contains a URL of the Bot API.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from lambdas.adapters.errors import translated_errors
from lambdas.adapters.fetch import PublicWeb
from maskdrop.bot import BotThrottled, ChatUnreachable, Credentials, Place
from maskdrop.errors import FailedDownload, FileTooLarge, HostUnavailable
from maskdrop.services import Download

FRESH_S = 60.0
"""Seconds for which credentials are cached: a new secret takes effect after at most this time."""

RETRY_AFTER_S = 5
"""Seconds before a throttled call is repeated, where the response does not state them."""

FILE_PATH = re.compile(r"[A-Za-z0-9_-]+(?:[/.][A-Za-z0-9_-]+)*")
"""Path of a file in the Bot API, such as photos/file_1.jpg: no parts that leave the folder of the token."""


class Parameter:
    """The credentials of the bot in an SSM parameter (SecureString, JSON). clock: monotonic time in seconds."""

    def __init__(self, client: Any, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._name, self._clock = client, name, clock
        self._credentials: Credentials | None = None
        self._stale = -1.0

    def read(self) -> Credentials:
        """Raises HostUnavailable where the parameter cannot be read or is invalid."""
        if self._credentials is None or self._clock() >= self._stale:
            with translated_errors(HostUnavailable, "Reading the credentials of the bot"):
                self._credentials = self.read_now()
            self._stale = self._clock() + FRESH_S
        return self._credentials

    def read_now(self) -> Credentials:
        """Reads them without the cache. Raises HostUnavailable for an invalid parameter, and the errors of botocore."""
        response = self._client.get_parameter(Name=self._name, WithDecryption=True)
        try:
            return Credentials.from_json(json.loads(response["Parameter"]["Value"]))
        except (ValueError, KeyError, TypeError):
            raise HostUnavailable(
                f"The parameter {self._name} is invalid; write it again with `maskdrop bot install`."
            ) from None  # the cause may contain the token


class Telegram:
    """The Bot API. token: returns the token of the bot. url: of the Bot API server."""

    def __init__(self, web: PublicWeb, url: str, token: Callable[[], str]) -> None:
        self._web, self._url, self._token = web, url.rstrip("/"), token

    def call(self, method: str, parameters: Mapping[str, Any]) -> Any:
        """Calls a method without a file and returns its result."""
        return self._call(method, "application/json", json.dumps(parameters).encode())

    def send_text(self, place: Place, text: str) -> None:
        self.call("sendMessage", {**place.parameters(), "text": text, "link_preview_options": {"is_disabled": True}})

    def send_document(self, place: Place, data: bytes, name: str, content_type: str, caption: str) -> None:
        # Without it, Telegram may show a WebP document as a sticker.
        parameters = {**place.parameters(), "caption": caption, "disable_content_type_detection": True}
        self._upload("sendDocument", parameters, "document", data, name, content_type)

    def send_sticker(self, place: Place, data: bytes) -> None:
        self._upload("sendSticker", place.parameters(), "sticker", data, "sticker.webp", "image/webp")

    def download(self, file_id: str) -> Download:
        try:
            path = str(self.call("getFile", {"file_id": file_id}).get("file_path", ""))
        except ChatUnreachable as error:  # status 400
            if "too big" in error.message:
                raise FileTooLarge(
                    "The file is too large: Telegram gives bots files of at most 20 MB. Send a smaller one."
                ) from None
            raise FailedDownload("Telegram does not have this file any more. Send it again.") from None
        if not FILE_PATH.fullmatch(path):
            raise FailedDownload("Telegram returned an invalid path for this file. Send it again.")
        return self._web.fetch(f"{self._url}/file/bot{self._token()}/{path}")

    def _upload(
        self, method: str, parameters: Mapping[str, Any], field: str, data: bytes, name: str, content_type: str
    ) -> None:
        boundary = uuid.uuid4().hex
        body = bytearray()
        for key, value in parameters.items():
            text = value if isinstance(value, str) else json.dumps(value)
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n'.encode()
        body += (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        ).encode()
        body += data
        body += f"\r\n--{boundary}--\r\n".encode()
        self._call(method, f"multipart/form-data; boundary={boundary}", body)

    def _call(self, method: str, content_type: str, body: bytes | bytearray) -> Any:
        url = f"{self._url}/bot{self._token()}/{method}"
        status, answer = self._web.exchange(url, {"Content-Type": content_type}, body)
        try:
            response = json.loads(answer)
            if response["ok"]:
                return response["result"]
            description, parameters = str(response.get("description", "")), response.get("parameters") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise HostUnavailable(f"The Bot API responded to {method} with status {status} without JSON.") from None
        if status == 429:
            seconds = int(parameters.get("retry_after", RETRY_AFTER_S))
            raise BotThrottled(f"The Bot API accepts no more calls for {seconds} s.", seconds)
        if status in (400, 403):
            raise ChatUnreachable(f"{method}: {description}", parameters.get("migrate_to_chat_id"))
        raise HostUnavailable(f"The Bot API responded to {method} with status {status}: {description}")
