"""Hooks of schemathesis that generate images, presets and URLs. The URLs need no name resolution."""

from __future__ import annotations

import base64
import io
import os
from typing import Any
from urllib.parse import urlencode

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from local.config import ROOT
from maskdrop.presets import NAME, PRESETS

PHOTO = ROOT / "samples" / "default" / "astronaut.png"

URLS = ("https://10.0.0.1/a.jpg", "https://photos.invalid/a.jpg", "https://127.0.0.1:443/", "https://a.local/?b")


URL_AND_HEADERS_MAX = 8_000
"""Maximum bytes of query and headers. API Gateway allows 10,240 for the request line and all headers."""


def image(size: tuple[int, int], form: str) -> bytes:
    with Image.open(PHOTO) as photo:
        encoded = io.BytesIO()
        photo.resize(size).save(encoded, form)
    return encoded.getvalue()


FILES = st.binary(min_size=1) | st.builds(
    image, st.sampled_from([(1, 1), (64, 48), (3, 200), (320, 240)]), st.sampled_from(["JPEG", "PNG", "WEBP"])
)

schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.format("byte", FILES.map(base64.b64encode).map(bytes.decode))
schemathesis.openapi.format("uri", st.sampled_from(URLS))
schemathesis.openapi.media_type("image/*", FILES)


@schemathesis.hook
def map_query(_: object, query: dict[str, Any]) -> dict[str, Any]:
    return with_known_preset(query)


@schemathesis.hook
def map_body(_: object, body: Any) -> Any:
    """Replaces a valid S3 object by the URL of a photo, so that jobs exist."""
    if not isinstance(body, dict):
        return body
    match body.get("source"):
        case {"bucket": str(), "key": str(key)} if key and len(body["source"]) == 2:
            body = {**body, "source": {"url": os.environ["MASKDROP_PHOTO"]}}
    return with_known_preset(body)


@schemathesis.hook
def filter_case(_: object, case: schemathesis.Case) -> bool:
    """Omits requests whose query and headers are too long for any HTTP server."""
    sent = [*(case.query or {}).items(), *(case.headers or {}).items()]
    return len(urlencode([(name, str(value)) for name, value in sent])) <= URL_AND_HEADERS_MAX


def with_known_preset(options: dict[str, Any]) -> dict[str, Any]:
    """Replaces a valid preset name by the name of an existing preset."""
    name = (options or {}).get("preset")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return options
    return {**options, "preset": [*PRESETS][len(name) % len(PRESETS)]}
