"""A network with a small square view looks twice: at the whole image, squeezed, and at the padded box of what it
found, where people fill its view. The second looks at the mirror image too, and takes the mean: what a network gets
wrong, it seldom gets wrong both ways round.

Mean IoU of `selfie` on 241 images of people (`maskdrop evaluate`): one pass 0.925, two 0.931, with the mirror image
0.936, and with boxes that squeeze nobody more than STRETCH 0.938. Without the mirror image, one photo as PNG, JPEG,
WebP and at half its size has an IoU anywhere from 0.904 to 0.956.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

Floats = NDArray[np.float32]

Look = Callable[[Pixels], Floats]
"""A network's view of an image squeezed to its square, sxsx3 uint8: sxs float32 in 0..1, 1 = subject."""

HAZE = 0.25
"""Certainties below it count as none, above its complement as full: a network is seldom quite sure, and what it takes
for a quarter of a person is a veil over the background."""

MATTE_SIDE = 1024
"""Pixels of the long side of the matte: enough for a second pass on a quarter of the image's sides."""

MARGIN = 0.12
"""Of the box's sides, added on each side before the second pass."""

SPECK = 0.02
"""Of the largest region's area: smaller ones are no people and do not widen the box."""


STRETCH = 2.0
"""How much wider or higher than the other way the second pass may see things. A standing person's own box is four
times as high as it is wide, and squeezed into a square it is no longer taken for a person."""


def two_passes(rgb: Pixels, look: Look, side: int, margin: float = MARGIN) -> Floats:
    """hxw float32 in 0..1 over the whole of `rgb`, HxWx3 uint8; all 0 where the first pass finds nobody. `side`: of the
    square that `look` takes."""
    height, width = rgb.shape[:2]
    scale = min(1.0, MATTE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = resized(rgb, size)
    seen = resized(picture, (side, side))
    found = look(seen)
    box = _box(found, size, margin)
    if box is None:
        return np.zeros(size[::-1], np.float32)
    if box == (0, 0, *size):  # as a portrait's often is
        matte = resized((found + _mirrored(look, seen)) / 2, size)
    else:
        x0, y0, x1, y1 = box
        seen = resized(picture[y0:y1, x0:x1], (side, side))
        closer = resized((look(seen) + _mirrored(look, seen)) / 2, (x1 - x0, y1 - y0))
        matte = resized(found, size)
        inside = matte[y0:y1, x0:x1]
        inside += _ramp(box, size) * (closer - inside)
    matte -= HAZE
    matte /= 1 - 2 * HAZE
    return np.clip(matte, 0, 1, out=matte)


def _mirrored(look: Look, seen: Pixels) -> Floats:
    """What `look` finds in the mirror image, turned back."""
    return look(cv2.flip(seen, 1))[:, ::-1]


def _box(found: Floats, size: tuple[int, int], margin: float) -> tuple[int, int, int, int] | None:
    """x0, y0, x1, y1 in pixels of `size` around all people of the first pass, sxs, padded; None when there are none."""
    count, _, stats, _ = cv2.connectedComponentsWithStats((found >= 0.5).astype(np.uint8))
    if count == 1:
        return None
    regions = stats[1:]
    regions = regions[regions[:, cv2.CC_STAT_AREA] >= SPECK * regions[:, cv2.CC_STAT_AREA].max()]
    left, top = regions[:, cv2.CC_STAT_LEFT], regions[:, cv2.CC_STAT_TOP]
    right, bottom = left + regions[:, cv2.CC_STAT_WIDTH], top + regions[:, cv2.CC_STAT_HEIGHT]
    start = np.array([left.min(), top.min()])
    end = np.array([right.max(), bottom.max()])
    pad = margin * (end - start)
    side = found.shape[0]
    to_pixels = np.array(size) / side
    x0, y0 = np.floor(np.clip(start - pad, 0, side) * to_pixels).astype(int)
    x1, y1 = np.ceil(np.clip(end + pad, 0, side) * to_pixels).astype(int)
    width, height = x1 - x0, y1 - y0
    x0, x1 = _widened(int(x0), int(x1), math.ceil(height / STRETCH), size[0])
    y0, y1 = _widened(int(y0), int(y1), math.ceil(width / STRETCH), size[1])
    return x0, y0, x1, y1


def _widened(start: int, end: int, least: int, limit: int) -> tuple[int, int]:
    """`start` to `end` with at least so many pixels around the same middle, within 0 to `limit` as far as it goes."""
    length = min(max(end - start, least), limit)
    start = min(max(0, (start + end - length) // 2), limit - length)
    return start, start + length


def _ramp(box: tuple[int, int, int, int], size: tuple[int, int]) -> Floats:
    """The second pass's weight in its box: 1, falling towards those sides that do not lie on the image's border, so
    that a person who reaches beyond the box is not cut by a seam."""
    x0, y0, x1, y1 = box
    width, height = size
    across = _rise(x1 - x0, open_start=x0 > 0, open_end=x1 < width)
    down = _rise(y1 - y0, open_start=y0 > 0, open_end=y1 < height)
    return np.minimum.outer(down, across)


def _rise(length: int, *, open_start: bool, open_end: bool) -> Floats:
    edge = max(1.0, length * MARGIN / (1 + 2 * MARGIN) / 2)  # half of the margin
    distance = np.arange(length, dtype=np.float32) + 0.5
    values = np.ones(length, np.float32)
    if open_start:
        values = np.minimum(values, distance / edge)
    if open_end:
        values = np.minimum(values, distance[::-1] / edge)
    return values
