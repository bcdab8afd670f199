"""A local stub of Telegram's Bot API, mounted in the SageMaker emulator at /telegram.

    POST /bot{token}/{method}     the methods in METHODS, with JSON or a form
    GET  /file/bot{token}/{path}  downloads a file
    POST /files                   uploads a file as a user would; returns its file_id
    POST /updates                 sends an update to the webhook, as Telegram does; returns the status of the webhook
    GET, POST /control            messages that the bot has sent, and its webhook; outcomes of the next calls

A reply in the response of the webhook counts as a call. Unlike Telegram, the stub does not repeat an update on its own,
accepts any token of the right form, and accepts http URLs of this machine.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
from multipart import MultipartParser, MultipartPart, parse_options_header  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local.connect import tls_verify

TOKEN = re.compile(r"\d+:[\w-]{20,}")
USERNAME = "maskdrop_local_bot"

METHODS = (
    "getMe",
    "getFile",
    "setWebhook",
    "getWebhookInfo",
    "deleteWebhook",
    "setMyCommands",
    "sendMessage",
    "sendDocument",
    "sendSticker",
)
"""The methods that the bot calls."""

DOWNLOAD_MAX, UPLOAD_MAX = 20_000_000, 50_000_000
"""Limits of the Bot API in bytes."""

ERRORS: dict[int, tuple[str, dict[str, Any]]] = {
    400: ("Bad Request: message to be replied not found", {}),
    401: ("Unauthorized", {}),
    403: ("Forbidden: bot was blocked by the user", {}),
    429: ("Too Many Requests: retry after 1", {"retry_after": 1}),
    502: ("Bad Gateway", {}),
}
"""Simulated errors, by status: description and parameters."""


class BotApiError(Exception):
    """A response with an error status."""

    def __init__(self, status: int, description: str, parameters: Mapping[str, Any] | None = None) -> None:
        super().__init__(description)
        self.status, self.description, self.parameters = status, description, dict(parameters or {})


class BotApi:
    """One bot. script: statuses of the next calls, by method, each used once; 200 succeeds."""

    def __init__(self, ca_bundle: Path | None) -> None:
        self._ca_bundle = ca_bundle
        self.script: dict[str, list[int]] = {}
        self.calls: Counter[str] = Counter()
        self.sent: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.webhook: dict[str, Any] = {"url": ""}

    async def method(self, request: Request) -> Response:
        name = request.path_params["method"]
        try:
            if not TOKEN.fullmatch(request.path_params["token"]):
                raise BotApiError(401, "Unauthorized")
            if name not in METHODS:
                raise BotApiError(404, "Not Found")
            result = self._call(name, await _parameters(request))
        except BotApiError as error:
            body: dict[str, Any] = {"ok": False, "error_code": error.status, "description": error.description}
            if error.parameters:
                body["parameters"] = error.parameters
            return JSONResponse(body, error.status)
        return JSONResponse({"ok": True, "result": result})

    def _call(self, name: str, values: dict[str, Any]) -> Any:
        self.calls[name] += 1
        outcomes = self.script.get(name, [])
        if outcomes and (status := outcomes.pop(0)) != 200:
            raise BotApiError(status, *ERRORS[status])
        if name.startswith("send"):
            return self._send(name, values)
        match name:
            case "getMe":
                return {"id": 1, "is_bot": True, "first_name": "Maskdrop", "username": USERNAME}
            case "getFile":
                return self._file(str(values.get("file_id")))
            case "setWebhook":
                if not re.match(r"https://|http://(127\.0\.0\.1|localhost):", values["url"]):
                    raise BotApiError(400, "Bad Request: bad webhook: An HTTPS URL must be provided for webhook")
                self.webhook = dict(values)
            case "getWebhookInfo":
                return {"url": self.webhook["url"], "has_custom_certificate": False, "pending_update_count": 0}
            case "deleteWebhook":
                self.webhook = {"url": ""}
        return True

    def _file(self, file_id: str) -> dict[str, Any]:
        body = self.files.get(file_id)
        if body is None:
            raise BotApiError(400, "Bad Request: invalid file_id")
        if len(body) > DOWNLOAD_MAX:
            raise BotApiError(400, "Bad Request: file is too big")
        return {"file_id": file_id, "file_size": len(body), "file_path": f"photos/{file_id}.jpg"}

    def _send(self, name: str, values: dict[str, Any]) -> dict[str, Any]:
        file = next((value for value in values.values() if isinstance(value, MultipartPart)), None)
        entry = {key: value for key, value in values.items() if not isinstance(value, MultipartPart)}
        entry["method"] = name
        if file:
            if len(file.raw) > UPLOAD_MAX:
                raise BotApiError(413, "Request Entity Too Large")
            self.files[file_id := uuid.uuid4().hex] = file.raw
            digest = hashlib.sha256(file.raw).hexdigest()
            entry |= {"file_id": file_id, "name": file.filename, "bytes": len(file.raw), "sha256": digest}
            entry["type"] = file.content_type
        elif name == "sendMessage" and not str(values.get("text", "")):
            raise BotApiError(400, "Bad Request: message text is empty")
        self.sent.append(entry)
        return {"message_id": len(self.sent), "chat": {"id": int(values["chat_id"])}, "date": 0}

    async def file(self, request: Request) -> Response:
        body = self.files.get(request.path_params["path"].removeprefix("photos/").removesuffix(".jpg"))
        return Response(body, media_type="application/octet-stream") if body else Response(status_code=404)

    async def upload(self, request: Request) -> Response:
        self.files[file_id := uuid.uuid4().hex] = await request.body()
        return JSONResponse({"file_id": file_id})

    async def update(self, request: Request) -> Response:
        """Sends an update to the webhook. The header of the secret can be forged with the query `secret`."""
        secret = request.query_params.get("secret", self.webhook.get("secret_token", ""))
        headers = {"X-Telegram-Bot-Api-Secret-Token": secret}
        async with httpx2.AsyncClient(timeout=30, trust_env=False, verify=tls_verify(self._ca_bundle)) as http:
            response = await http.post(self.webhook["url"], json=await request.json(), headers=headers)
        reply = response.json() if response.status_code == 200 else {}
        if method := reply.pop("method", ""):
            self._call(method, reply)
        return JSONResponse({"status": response.status_code, "method": method})

    async def control(self, request: Request) -> Response:
        if request.method == "POST":
            changes = await request.json()
            self.script = {name: list(statuses) for name, statuses in changes.get("script", {}).items()}
        state = {"sent": self.sent, "calls": self.calls, "script": self.script, "webhook": self.webhook}
        return JSONResponse(state)


async def _parameters(request: Request) -> dict[str, Any]:
    if request.headers.get("content-type", "").startswith("application/json"):
        values: dict[str, Any] = await request.json()
        return values
    _, options = parse_options_header(request.headers["content-type"])
    body, room = await request.body(), UPLOAD_MAX + 1_000_000
    parser = MultipartParser(BytesIO(body), options["boundary"], len(body), memory_limit=room, spool_limit=room)
    return {part.name: part if part.filename else part.value for part in parser}


def app(ca_bundle: Path | None = None) -> Starlette:
    """Returns the ASGI application. ca_bundle: certificates that verify the webhook; None: those of the system."""
    api = BotApi(ca_bundle)
    return Starlette(
        routes=[
            Route("/bot{token}/{method}", api.method, methods=["GET", "POST"]),
            Route("/file/bot{token}/{path:path}", api.file),
            Route("/files", api.upload, methods=["POST"]),
            Route("/updates", api.update, methods=["POST"]),
            Route("/control", api.control, methods=["GET", "POST"]),
        ]
    )
