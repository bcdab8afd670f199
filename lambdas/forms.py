"""The body of a form with files (multipart/form-data, RFC 7578)."""

from __future__ import annotations

from io import BytesIO

from multipart import MultipartError, MultipartParser, parse_options_header  # type: ignore[import-untyped]

from maskdrop.errors import InvalidOptions

PARTS_MAX = 64


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
