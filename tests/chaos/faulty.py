"""An ASGI application in front of an emulator that gives its calls the faults of the plan.

The faults are injected behind the HTTP server, so that signatures, which cover the Host header, and TLS stay valid.
Imports only the standard library, because the AWS emulator runs it.

    POST /_chaos  {"share", "down", "advance_s"}   changes the faults; all fields are optional
                  returns {"counts": {"<service> <fault>": n}}
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from tests.chaos.plan import SERVICES, CallFault, Faults, Service

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
Message = dict[str, Any]

CONTROL = "/_chaos"

EXEMPT = "X-Chaos-Exempt"
"""Header of the calls that have no faults: those of the harness itself."""

TIMEOUT_S = 11.0
"""Duration of a call that times out: the functions wait 10 s for a response."""

LATE_S = 1.0
"""Delay of a late call, in seconds: others overtake it."""

NAMES: dict[str, tuple[str, str]] = {
    "s3": ("SlowDown", "InternalError"),
    "dynamodb": ("ProvisionedThroughputExceededException", "InternalServerError"),
    "sqs": ("ThrottlingException", "InternalFailure"),
    "sns": ("Throttling", "InternalError"),
    "events": ("ThrottlingException", "InternalException"),
    "sagemaker": ("ThrottlingException", "ServiceUnavailable"),
}
"""Error codes of a throttled call and of a server error of each AWS service."""

SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([a-z0-9-]+)/aws4_request")


class FaultyApp:
    """advance: called with the seconds by which the emulator's clock is advanced."""

    def __init__(self, app: App, faults: Faults, advance: Callable[[float], None] = lambda _: None) -> None:
        self._app, self._faults, self._advance = app, faults, advance

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == CONTROL:
            await self._control(receive, send)
        elif (service := service_of(scope)) and (fault := self._faults.of_call(service)):
            await self._respond(fault, service, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _control(self, receive: Any, send: Any) -> None:
        changes = json.loads(await _body(receive) or b"{}")
        self._faults.share = changes.get("share", self._faults.share)
        self._faults.down = set(changes.get("down", self._faults.down))
        self._advance(changes.get("advance_s", 0.0))
        body = json.dumps({"counts": self._faults.counts}).encode()
        await _send(send, 200, [(b"content-type", b"application/json")], body)

    async def _respond(
        self, fault: CallFault, service: Service, scope: dict[str, Any], receive: Any, send: Any
    ) -> None:
        if fault in ("throttle", "error"):
            await _body(receive)
            status, headers, body = _error(service, throttled=fault == "throttle")
            await _send(send, status, headers, b"" if scope["method"] == "HEAD" else body)
            return
        body = await _body(receive)
        if fault == "late":
            await asyncio.sleep(LATE_S)
        response = await self._call(scope, body)
        if fault == "sent_twice":
            response = await self._call(scope, body)
        elif fault == "response_lost":
            status, headers, error = _error(service, throttled=False)
            response = status, headers, error if scope["method"] != "HEAD" else b""
        elif fault == "timeout":
            await asyncio.sleep(TIMEOUT_S)
        elif fault == "half_response" and len(response[2]) > 1:
            length = (b"content-length", str(len(response[2])).encode())
            headers = [one for one in response[1] if one[0].lower() not in (b"content-length", b"transfer-encoding")]
            await send({"type": "http.response.start", "status": response[0], "headers": [*headers, length]})
            half = response[2][: len(response[2]) // 2]
            await send({"type": "http.response.body", "body": half, "more_body": True})
            return  # the server closes the connection of a response without an end
        await _send(send, *response)

    async def _call(self, scope: dict[str, Any], body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Sends a request with this body to the application and returns its response."""
        parts: list[Message] = []
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            return pending.pop() if pending else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            parts.append(message)

        await self._app(dict(scope), receive, send)
        [start] = [part for part in parts if part["type"] == "http.response.start"]
        sent = b"".join(part.get("body", b"") for part in parts if part["type"] == "http.response.body")
        return start["status"], list(start.get("headers", [])), sent


def service_of(scope: dict[str, Any]) -> Service | None:
    """Returns the service of a signed call; None for other requests and those of the harness."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    found = SCOPE.search(headers.get(b"authorization", ""))
    if not found or EXEMPT.lower().encode() in headers:
        return None
    return next((service for service in SERVICES if service == found[1] and service in NAMES), None)


def _error(service: Service, *, throttled: bool) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    code = NAMES[service][0 if throttled else 1]
    text = "This error was injected."
    if service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        return 503 if throttled else 500, [(b"content-type", b"application/xml")], body.encode()
    if service == "sns":
        body = f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{text}</Message></Error>"
        return 400 if throttled else 500, [(b"content-type", b"text/xml")], f"{body}</ErrorResponse>".encode()
    headers = [(b"content-type", b"application/x-amz-json-1.0"), (b"x-amzn-errortype", code.encode())]
    status = 400 if throttled else 500
    if service == "sagemaker":
        status = 400 if throttled else 503
    return status, headers, json.dumps({"__type": code, "message": text, "Message": text}).encode()


async def _body(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _send(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    names = {name.lower() for name, _ in headers}
    length = [] if b"content-length" in names else [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})
