"""Parses request bodies: multipart/form-data (RFC 7578), application/x-www-form-urlencoded, JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartParser, parse_options_header  # type: ignore[import-untyped]

from maskdrop.errors import InvalidOptions
from maskdrop.sniff import HEAD, image_type

PARTS_MAX = 64

BASE64_MIN = 64
"""Characters of the shortest image in base64, about: a GIF of one pixel has 35 bytes."""

BASE64 = re.compile(r"[A-Za-z0-9+/_\s-]*={0,2}\s*")


def fields_of(body: bytes, content_type: str) -> dict[str, Any]:
    """Returns name -> value; the last value of a repeated name wins. Raises InvalidOptions.

    A body that begins with "{" is JSON with every content type but that of a multipart form: curl's --data names JSON a
    URL-encoded form, and fetch names it text/plain. Values are bytes from multipart/form-data, str from URL-encoded
    forms, and any JSON value from JSON.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return dict(parts_of(body, content_type))
    if body.lstrip()[:1] == b"{":
        kind = "application/json"
    try:
        if kind == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=PARTS_MAX))
        data = json.loads(body) if kind == "application/json" else None
    except (ValueError, RecursionError) as error:
        raise InvalidOptions(f"The body must be valid {kind}.") from error
    if not isinstance(data, dict):
        raise InvalidOptions(
            "The body must be multipart/form-data, application/x-www-form-urlencoded or a JSON object."
        )
    return data


def parts_of(body: bytes, content_type: str) -> dict[str, bytes]:
    """Returns name -> content of fields and files; the last of a repeated name wins. Raises InvalidOptions."""
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise InvalidOptions(
            "The Content-Type multipart/form-data must have a boundary. Let the HTTP client set this header."
        )
    room = len(body) + 1  # the body is in memory already, so the parser must not spool to disk
    parser = MultipartParser(
        BytesIO(body), boundary, len(body), part_limit=PARTS_MAX, memory_limit=room, spool_limit=room
    )
    try:
        return {part.name: part.raw for part in parser}
    except MultipartError as error:
        raise InvalidOptions(f"The body must be valid multipart/form-data: {error}.") from error


def misplaced_image(fields: Mapping[str, Any]) -> str | None:
    """Returns the name of the first field that contains a file, the URL of an image or an image in base64; None without
    one. For messages to a client that uses another name for the field."""
    return next((name for name, value in fields.items() if _holds_image(value)), None)


def _holds_image(value: Any) -> bool:
    if isinstance(value, bytes):
        if image_type(value[:HEAD]):
            return True
        try:
            value = value.decode()
        except UnicodeDecodeError:
            return True
    return isinstance(value, str) and (value.startswith(("http://", "https://", "data:image/")) or is_base64(value))


def is_base64(text: str) -> bool:
    """Returns whether a text is as long as an image in base64, and begins as one."""
    return len(text) >= BASE64_MIN and BASE64.fullmatch(text[:BASE64_MIN]) is not None
