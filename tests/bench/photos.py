"""The images of the benchmarks, all made from one sample: a person in front of a background."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

SAMPLE = Path(__file__).parents[2] / "samples" / "default" / "astronaut.png"

MIXED_SIDES = (320, 1000, 640, 3464, 512, 2000)
"""0.1, 1, 0.4, 12, 0.26 and 4 MP: as different as the photos of one folder may be."""


@dataclass(frozen=True, slots=True)
class Photos:
    """photo: JPEG of 1 MP. mixed: JPEGs of MIXED_SIDES squared."""

    photo: bytes
    mixed: tuple[bytes, ...]

    @classmethod
    def made(cls) -> Photos:
        return cls(jpeg(1000), tuple(jpeg(side) for side in MIXED_SIDES))


def jpeg(side: int) -> bytes:
    """The sample as a JPEG of side x side pixels."""
    buffer = io.BytesIO()
    with Image.open(SAMPLE) as sample:
        resized = sample.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    resized.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
