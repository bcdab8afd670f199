"""How datasets write masks: as files, as polygons, one by one for every instance. All come out as HxW uint8, 255 =
subject."""

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
"""Which instances of an image are its subject: all of them joined; the most central one; or the only one there is."""

FAR = 1e6
"""Pixels. No image is as wide: a coordinate beyond it is a fault of the file, and OpenCV's would overflow."""

FRACTION_BITS = 4
"""Of OpenCV's coordinates: polygons are drawn to a sixteenth of a pixel."""


def png(data: bytes) -> Image.Image:
    """A PNG, decoded, in the mode that the file has. Raises BadRecord."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
            if opened.width * opened.height <= LIMITS.max_pixels:
                opened.load()
                return opened
    except Exception as error:  # damaged files make Pillow raise OSError, ValueError, SyntaxError and others
        raise BadRecord(f"unreadable mask: {error}") from error
    raise BadRecord(f"unreadable mask: it has {opened.width} x {opened.height} pixels")


def polygon(points: Any, height: int, width: int, *, between: bool) -> Pixels:
    """The inside of a polygon. What lies outside the image is cut off.

    points: [[x, y], ...]. between: they lie between pixels, whose centres are at halves (COCO), and what the outline
    runs through is outside; else they are pixels themselves, and inside (Supervisely). Against COCO's own decoder, 328
    polygons above 400 pixels: mean IoU 0.985, area 0.1 % more (with the outline 0.953, 5 % more). Raises BadRecord.
    """
    try:
        corners = np.asarray(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadRecord(f"bad polygon: {error}") from error
    if corners.ndim != 2 or corners.shape[1] != 2 or len(corners) < 3:
        raise BadRecord("bad polygon: fewer than 3 points")
    if not (np.abs(corners) < FAR).all():
        raise BadRecord("bad polygon: a point far outside the image")
    drawn = np.zeros((height, width), np.uint8)
    places = np.rint((corners - 0.5 * between) * (1 << FRACTION_BITS)).astype(np.int32)
    cv2.fillPoly(drawn, [places], 255, lineType=cv2.LINE_AA if between else cv2.LINE_8, shift=FRACTION_BITS)
    return np.where(drawn == 255, np.uint8(255), np.uint8(0))


def checked_size(height: Any, width: Any) -> tuple[int, int]:
    """The size that an annotation says, (height, width). Raises BadRecord, and what Python raises of a wrong type."""
    height, width = int(height), int(width)
    if min(height, width) < 1 or height * width > LIMITS.max_pixels:
        raise BadRecord(f"bad annotation: a size of {width} x {height}")
    return height, width


def joined(instances: Sequence[Pixels], subject: Subject, height: int, width: int) -> Pixels:
    """The mask of an image by those of its instances; empty where there are none. Raises BadRecord."""
    if subject == "only" and len(instances) != 1:
        raise BadRecord(f"not exactly one subject: {len(instances)}")
    if subject == "central" and instances:
        return max(instances, key=_centrality)
    empty = np.zeros((height, width), np.uint8)
    return np.maximum.reduce([empty, *instances])


def _centrality(mask: Pixels) -> float:
    """Area by the fourth power of the distance between the centres of box and image: that much does a photographer's
    aim count for more than size. Below a pixel of distance area alone counts."""
    x, y, width, height = cv2.boundingRect(mask)
    distance = np.hypot(x + width / 2 - mask.shape[1] / 2, y + height / 2 - mask.shape[0] / 2)
    return float(cv2.countNonZero(mask) / max(distance, 1.0) ** 4)
