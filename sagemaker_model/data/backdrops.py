"""Background images without people: strips beside the subjects of photos, and views rendered from panoramas.

Training puts subjects on these images, and learns from the images alone that no subject is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sagemaker_model.data.records import InvalidData, Record
from sagemaker_model.imaging.pixels import Pixels

SUBJECT_MARGIN = 6
"""Pixels between the subject's bounding box and a strip: masks are slightly too narrow."""

MIN_STRIP_WIDTH, MIN_STRIP_SHARE = 100, 0.3
"""Minimum width of a strip, in pixels and as a share of the image's width."""

FIELD_OF_VIEW, PITCH = (50.0, 100.0), (-15.0, 20.0)
"""Ranges of a view's camera, in degrees: horizontal field of view, and downward pitch."""

MEDIAN_LIGHT = 0.35
"""Linear light of a view's median pixel, 0..1, before a random change of half a stop either way. A camera's meter
aims one stop lower; photos of people in rooms are exposed brighter."""


def strips(record: Record) -> Iterator[Pixels]:
    """Yields the parts of an image left and right of its subject, at full height. HxWx3 uint8."""
    width = record.mask.shape[1]
    x, _, box_width, _ = cv2.boundingRect(record.mask)
    for start, end in ((0, x - SUBJECT_MARGIN), (x + box_width + SUBJECT_MARGIN, width)):
        if end - start >= max(MIN_STRIP_WIDTH, MIN_STRIP_SHARE * width):
            yield record.image[:, start:end]


def read_panorama(path: Path) -> NDArray[np.float32]:
    """Reads an equirectangular panorama from a .hdr or .exr file. Hx2Hx3, linear light, RGB.

    OpenCV reads .exr only if the environment variable OPENCV_IO_ENABLE_OPENEXR is 1. Raises InvalidData.
    """
    try:
        bgr = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise InvalidData(f"{path} cannot be read: {error.err or error.msg}.") from error
    if bgr is None or bgr.ndim != 3 or bgr.dtype != np.float32 or bgr.shape[1] != 2 * bgr.shape[0]:
        raise InvalidData(
            f"{path} is not a panorama: it must have three float channels and a width of twice its height."
        )
    return np.ascontiguousarray(bgr[..., 2::-1], np.float32)


def panorama_view(panorama: NDArray[np.float32], side: int, random: Generator) -> Pixels:
    """Renders a photo from inside a panorama, with a random direction and exposure. side x side x 3 uint8, sRGB.

    panorama: equirectangular, Hx2Hx3, linear light, RGB, with the horizon at half its height.
    """
    yaw, pitch = random.uniform(-np.pi, np.pi), np.radians(random.uniform(*PITCH))
    forward = side / 2 / np.tan(np.radians(random.uniform(*FIELD_OF_VIEW)) / 2)
    x, y = np.meshgrid(np.arange(side) + 0.5 - side / 2, np.arange(side) + 0.5 - side / 2)
    down, forward = y * np.cos(pitch) + forward * np.sin(pitch), forward * np.cos(pitch) - y * np.sin(pitch)
    longitude, latitude = np.arctan2(x, forward) + yaw, np.arctan2(down, np.hypot(x, forward))
    height, width = panorama.shape[:2]
    columns, rows = (longitude / (2 * np.pi) % 1) * width - 0.5, (latitude / np.pi + 0.5) * height - 0.5
    light = cv2.remap(
        panorama, columns.astype(np.float32), rows.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP
    )
    exposed = light * MEDIAN_LIGHT * 2 ** random.uniform(-0.5, 0.5) / max(1e-6, float(np.median(light)))
    return np.rint(255 * exposed.clip(0, 1) ** (1 / 2.2)).astype(np.uint8)
