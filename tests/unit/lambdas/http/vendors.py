"""Calls the routes of the dialects with events of API Gateway."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from lambdas.http.routes import process
from maskdrop.access import Caller
from tests.fakes import NOW, World

PHOTO = bytes(range(256)) * 4
"""All byte values, including line ends and bytes that are not text."""

ENCODED = base64.b64encode(PHOTO).decode()

BOUNDARY = "the-boundary"

CALLER = Caller(id="k", owner="ann", scope="own", rate=3)


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    world: World,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    content_type: str = "",
    query: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    caller: Caller | None = CALLER,
    arn: str | None = "arn:aws:iam::1:user/ann",
) -> Response:
    """Sends a request. caller: of its key; None for a signed request of the IAM identity `arn`, or of nobody."""
    sent = {**({"Content-Type": content_type} if content_type else {}), **(headers or {})}
    event = {
        "httpMethod": method,
        "path": path,
        "resource": "/{proxy+}",
        "headers": sent,
        "multiValueHeaders": {name: [value] for name, value in sent.items()},
        "queryStringParameters": query or None,
        "multiValueQueryStringParameters": {name: [value] for name, value in (query or {}).items()} or None,
        "requestContext": {"stage": "v1", "requestId": "r"}
        | ({"authorizer": caller.to_context()} if caller else {"identity": {"userArn": arn}}),
        "body": base64.b64encode(body).decode() if body else None,
        "isBase64Encoded": bool(body),
    }
    response = process(event, SimpleNamespace(), world.settings, world.services, NOW)  # type: ignore[arg-type]
    lowered = {name.lower(): ",".join(values) for name, values in response["multiValueHeaders"].items()}
    text: str = response["body"]
    return Response(
        response["statusCode"], lowered, base64.b64decode(text) if response["isBase64Encoded"] else text.encode()
    )


def multipart(fields: dict[str, str | bytes]) -> tuple[bytes, str]:
    """Returns the body and its content type: str values as fields, bytes values as files without a content type."""
    body = b""
    for name, value in fields.items():
        file = f'; filename="{name}.jpg"' if isinstance(value, bytes) else ""
        body += f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        body += (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"


def urlencoded(fields: dict[str, str]) -> tuple[bytes, str]:
    return urlencode(fields).encode(), "application/x-www-form-urlencoded"


def in_json(fields: dict[str, Any]) -> tuple[bytes, str]:
    return json.dumps(fields).encode(), "application/json"
