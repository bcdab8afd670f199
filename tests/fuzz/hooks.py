"""What schemathesis cannot know: images, presets, and addresses, of which no name server is asked."""

from __future__ import annotations

import base64
import io
import os
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image

from local.config import ROOT
from maskdrop.presets import NAME, PRESETS

PHOTO = ROOT / "samples" / "default" / "astronaut.png"

ADDRESSES = ("https://10.0.0.1/a.jpg", "https://photos.invalid/a.jpg", "https://127.0.0.1:443/", "https://a.local/?b")


def image(size: tuple[int, int], form: str) -> bytes:
    with Image.open(PHOTO) as photo:
        made = io.BytesIO()
        photo.resize(size).save(made, form)
    return made.getvalue()


FILES = st.binary(min_size=1) | st.builds(
    image, st.sampled_from([(1, 1), (64, 48), (3, 200), (320, 240)]), st.sampled_from(["JPEG", "PNG", "WEBP"])
)

schemathesis.openapi.format("binary", FILES)
schemathesis.openapi.format("byte", FILES.map(base64.b64encode).map(bytes.decode))
schemathesis.openapi.format("uri", st.sampled_from(ADDRESSES))
schemathesis.openapi.media_type("image/*", FILES)


@schemathesis.hook
def map_query(_: object, query: dict[str, Any]) -> dict[str, Any]:
    return found(query)


@schemathesis.hook
def map_body(_: object, body: Any) -> Any:
    """A place in S3 as it should be becomes the address of a photo, so that there are jobs to ask for."""
    if not isinstance(body, dict):
        return body
    match body.get("source"):
        case {"bucket": str(), "key": str(key)} if key and len(body["source"]) == 2:
            body = {**body, "source": {"url": os.environ["MASKDROP_PHOTO"]}}
    return found(body)


def found(said: dict[str, Any]) -> dict[str, Any]:
    """With a preset that there is, where it has a preset's name."""
    name = (said or {}).get("preset")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return said
    return {**said, "preset": [*PRESETS][len(name) % len(PRESETS)]}
