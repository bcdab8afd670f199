"""Mask formats of datasets: PNG files, polygons, and one mask per instance. Results are HxW uint8, 255 = subject."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from sagemaker_model.data.records import LIMITS, BadRecord
from sagemaker_model.imaging.pixels import Pixels

Subject = Literal["all", "central", "only"]
"""Which instances of an image are its subject: all joined; the most central one; or the only one of the image."""

COORDINATE_MAX = 1e6
"""Pixels, above the width of any image: a larger coordinate is an error of the file, and would overflow in OpenCV."""

FRACTION_BITS = 4
"""Fractional bits of OpenCV's coordinates: polygons are drawn with a precision of 1/16 pixel."""


def decode_png(data: bytes) -> Image.Image:
    """Decodes a PNG in the mode of the file. Raises BadRecord."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height <= LIMITS.max_pixels:
                image.load()
                return image
    except Exception as error:  # for damaged files, Pillow raises OSError, ValueError, SyntaxError and others
        raise BadRecord(f"unreadable mask: {error}") from error
    raise BadRecord(f"unreadable mask: it has {image.width} x {image.height} pixels")


def draw_polygon(points: Any, height: int, width: int, *, continuous: bool) -> Pixels:
    """Draws a filled polygon, clipped to the image. HxW uint8.

    points: [[x, y], ...]. continuous: coordinates lie between pixels, whose centres are at halves, and pixels on the
    outline are outside (COCO); else coordinates are pixel indices, and pixels on the outline are inside (Supervisely).
    Compared with COCO's own decoder on 328 polygons above 400 pixels: mean IoU 0.985, area 0.1 % larger (with the
    outline inside 0.953, 5 % larger). Raises BadRecord.
    """
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(f"bad polygon: {error}") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise BadRecord("bad polygon: fewer than 3 points")
    if not (np.abs(corners) < COORDINATE_MAX).all():
        raise BadRecord("bad polygon: a point far outside the image")
    mask = np.zeros((height, width), np.uint8)
    vertices = np.rint((corners - 0.5 * continuous) * (1 << FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [vertices], 255, lineType=cv2.LINE_AA if continuous else cv2.LINE_8, shift=FRACTION_BITS)
    return np.where(mask == 255, np.uint8(255), np.uint8(0))


def validated_size(height: Any, width: Any) -> tuple[int, int]:
    """Returns (height, width) as integers. Raises BadRecord for a size out of range, ValueError or TypeError for values
    that are not numbers."""
    height, width = int(height), int(width)
    if min(height, width) < 1 or height * width > LIMITS.max_pixels:
        raise BadRecord(f"bad annotation: a size of {width} x {height}")
    return height, width


def combine_instances(instances: Sequence[Pixels], subject: Subject, height: int, width: int) -> Pixels:
    """Returns the mask of an image from the masks of its instances; empty for no instances. Raises BadRecord."""
    if subject == "only" and len(instances) != 1:
        raise BadRecord(f"not exactly one subject: {len(instances)}")
    if subject == "central" and instances:
        return max(instances, key=_centrality)
    mask: Pixels = np.maximum.reduce([np.zeros((height, width), np.uint8), *instances])
    return mask


def _centrality(mask: Pixels) -> float:
    """Returns the mask's area divided by the fourth power of its box's distance from the image centre, in pixels.

    The fourth power ranks position far above size, because photographers centre their subject. Distances below one
    pixel count as one.
    """
    x, y, width, height = cv2.boundingRect(mask)
    distance = np.hypot(x + width / 2 - mask.shape[1] / 2, y + height / 2 - mask.shape[0] / 2)
    return float(cv2.countNonZero(mask) / max(distance, 1.0) ** 4)
