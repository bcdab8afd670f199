"""The fields of a body: a form with files (multipart/form-data, RFC 7578), one without, or JSON."""

from __future__ import annotations

import json
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl

from multipart import MultipartError, MultipartParser, parse_options_header  # type: ignore[import-untyped]

from maskdrop.errors import InvalidOptions

PARTS_MAX = 64


def fields_of(body: bytes, content_type: str) -> dict[str, Any]:
    """Name -> value, the last one of a name: bytes from a form with files, text from one without, anything from JSON.
    Raises InvalidOptions."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return dict(parts_of(body, content_type))
    try:
        if kind == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=PARTS_MAX))
        data = json.loads(body) if kind == "application/json" else None
    except (ValueError, RecursionError) as error:
        raise InvalidOptions(f"The body is not {kind}.") from error
    if not isinstance(data, dict):
        raise InvalidOptions("Send a form (multipart/form-data, application/x-www-form-urlencoded) or a JSON object.")
    return data


def parts_of(body: bytes, content_type: str) -> dict[str, bytes]:
    """Name -> content, of fields and files alike; the last one of a name. Raises InvalidOptions."""
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        raise InvalidOptions("The Content-Type of a form names its boundary.")
    room = len(body) + 1  # all of it is in memory already: nothing goes to disk
    parser = MultipartParser(
        BytesIO(body), boundary, len(body), part_limit=PARTS_MAX, memory_limit=room, spool_limit=room
    )
    try:
        return {part.name: part.raw for part in parser}
    except MultipartError as error:
        raise InvalidOptions(f"The body is not a form: {error}.") from error
