"""Creates the images of the benchmarks from one sample, a person in front of a background."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SAMPLE = Path(__file__).parents[2] / "samples" / "default" / "astronaut.png"

MIXED_SIDES = (320, 1000, 640, 3464, 512, 2000)
"""Sides in pixels: 0.1, 1, 0.4, 12, 0.26 and 4 MP, mixed as in a folder of photos."""


@dataclass(frozen=True, slots=True)
class Photos:
    """JPEG files. photo: 1 MP. mixed: one of each of MIXED_SIDES."""

    photo: bytes
    mixed: tuple[bytes, ...]

    @classmethod
    def create(cls) -> Photos:
        return cls(jpeg(1000), tuple(jpeg(side) for side in MIXED_SIDES))


def jpeg(side: int) -> bytes:
    """The sample as a JPEG of side x side pixels."""
    buffer = io.BytesIO()
    with Image.open(SAMPLE) as sample:
        resized = sample.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    resized.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
