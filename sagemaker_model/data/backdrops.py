"""Images without people, to put subjects on and to learn from that nobody is there: what lies beside the subjects of
one's own photos, and views of panoramas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sagemaker_model.data.records import InvalidData, Record
from sagemaker_model.imaging.pixels import Pixels

APART = 6
"""Pixels between a subject's box and what is cut out beside it: masks are a little narrow."""

LEAST_PIXELS, LEAST_SHARE = 100, 0.3
"""How wide a strip beside a subject is at least, in pixels and of the photo."""

FIELD, TILT = (50.0, 100.0), (-15.0, 20.0)
"""Degrees: what a view shows from left to right, and how far the camera looks down."""

GREY = 0.35
"""Where the median of a view's linear light comes to, give or take half a stop: what a camera's meter aims at, and
brighter by a stop, as rooms with people are exposed."""


def strips(record: Record) -> Iterator[Pixels]:
    """What lies left and right of the subject, over the photo's whole height. HxWx3 uint8."""
    width = record.mask.shape[1]
    x, _, wide, _ = cv2.boundingRect(record.mask)
    for start, end in ((0, x - APART), (x + wide + APART, width)):
        if end - start >= max(LEAST_PIXELS, LEAST_SHARE * width):
            yield record.image[:, start:end]


def panorama(path: Path) -> NDArray[np.float32]:
    """Hx2Hx3, linear light, RGB, of a .hdr or .exr file. OpenCV reads the latter where its environment has
    OPENCV_IO_ENABLE_OPENEXR=1. Raises InvalidData."""
    try:
        read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InvalidData(f"{path} cannot be read: {error.err or error.msg}.") from error
    if read is None or read.ndim != 3 or read.dtype != np.float32 or read.shape[1] != 2 * read.shape[0]:
        raise InvalidData(f"{path} is no panorama: floats in three colours, twice as wide as high.")
    return np.ascontiguousarray(read[..., 2::-1])


def view(panorama: NDArray[np.float32], side: int, random: Generator) -> Pixels:
    """A photo taken inside of a panorama: side x side x 3 uint8, sRGB.

    panorama: a sphere unrolled to Hx2Hx3, linear light, RGB; the horizon is in the middle of its height.
    """
    turn, tilt = random.uniform(-np.pi, np.pi), np.radians(random.uniform(*TILT))
    ahead = side / 2 / np.tan(np.radians(random.uniform(*FIELD)) / 2)
    x, y = np.meshgrid(np.arange(side) + 0.5 - side / 2, np.arange(side) + 0.5 - side / 2)
    down, ahead = y * np.cos(tilt) + ahead * np.sin(tilt), ahead * np.cos(tilt) - y * np.sin(tilt)
    longitude, latitude = np.arctan2(x, ahead) + turn, np.arctan2(down, np.hypot(x, ahead))
    height, width = panorama.shape[:2]
    across, along = (longitude / (2 * np.pi) % 1) * width - 0.5, (latitude / np.pi + 0.5) * height - 0.5
    seen = cv2.remap(
        panorama, across.astype(np.float32), along.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    exposed = seen * GREY * 2 ** random.uniform(-0.5, 0.5) / max(1e-6, float(np.median(seen)))
    return np.rint(255 * exposed.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)
