"""The Accept header of a request (RFC 9110, section 12.5.1): q-values, wildcards, the most specific range first."""

from __future__ import annotations

import re

_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)

JSON, HTML = "application/json", "text/html"


def prefers_json(accept: str, content_type: str) -> bool:
    """Returns whether a client that accepts `accept` prefers JSON to a file of `content_type`.

    The file is sent where both have the same quality, where the header is absent or malformed, and where it admits
    neither. A client that ranks HTML as high as JSON takes any type, as the HTTP node of n8n does, and gets the file.
    """
    ranges = _ranges(accept)
    json, file = _quality(ranges, JSON), _quality(ranges, content_type)
    browses = file > 0 and ranges.get(HTML, 0.0) >= json
    return json > file and not browses


def _ranges(accept: str) -> dict[str, float]:
    """Returns media range -> quality. Parameters other than q, and malformed ranges, are ignored."""
    found: dict[str, float] = {}
    for element in accept.lower().split(","):
        media_range, *parameters = (part.strip() for part in element.split(";"))
        qualities = [parameter for parameter in parameters if parameter.startswith("q=")]
        match = _QUALITY.fullmatch(qualities[0]) if qualities else None
        if re.fullmatch(r"[^/\s]+/[^/\s]+", media_range) and (match or not qualities):
            found[media_range] = max(found.get(media_range, 0.0), float(match[1]) if match else 1.0)
    return found


def _quality(ranges: dict[str, float], content_type: str) -> float:
    """Returns the quality of a content type: that of the most specific range that matches it, else 0."""
    for media_range in (content_type, f"{content_type.partition('/')[0]}/*", "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
