"""Resizes images and mattes. `composite.resized_cutout` resizes images with alpha."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

HALVE_FROM = 4
"""Ratio of sides from which an image is halved first. From a ratio of 2, alpha would differ by up to 6 levels and the
foreground's error would grow by 3 %: halving blurs slightly."""

SAMPLED_SIDE = 1024
"""Pixels of a row in calls of `cv2.remap`, which allows at most 32,767 rows."""

Floats = NDArray[np.float32]
Indexes = NDArray[np.intp]


def resized(values: NDArray[Any], size: tuple[int, int], *, halve: bool = True) -> NDArray[Any]:
    """Resizes HxW or HxWxC to `size` (width, height): area means to shrink, linear interpolation to enlarge.

    halve: halve an array that is HALVE_FROM times too large first, while its sides are even. OpenCV's 2 x 2 mean is ten
    times faster than other ratios (12 MP of RGB to 250 pixels: 5 ms instead of 25). False for exact area means.
    """
    width, height = size
    smaller = width * height < values.shape[0] * values.shape[1]
    while halve and values.shape[0] >= HALVE_FROM * height and values.shape[1] >= HALVE_FROM * width:
        if values.shape[0] % 2 or values.shape[1] % 2:
            break
        values = cv2.resize(values, (values.shape[1] // 2, values.shape[0] // 2), interpolation=cv2.INTER_AREA)
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(values, size, interpolation=method).reshape(height, width, *values.shape[2:])


def shrunk(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resizes HxW or HxWxC to `size` (width, height), which is not larger, faster and a little less exactly.

    The array is halved by 2 x 2 means while it is at least twice as large, then interpolated linearly. OpenCV's area
    means take 9 ms for 1 MP of RGB, and 60 ms for 12 MP with an odd side; this takes 1 and 7 ms.
    """
    width, height = size
    scale_x, scale_y = width / values.shape[1], height / values.shape[0]
    while max(scale_x, scale_y) <= 0.5:
        values, scale_x, scale_y = halved(values), 2 * scale_x, 2 * scale_y
    if values.shape[:2] == (height, width):
        return values
    small = cv2.resize(values, None, fx=scale_x, fy=scale_y, interpolation=cv2.INTER_LINEAR)
    return small[:height, :width].reshape(height, width, *values.shape[2:])


def sampled(values: Sequence[MatLike], shape: tuple[int, ...], rows: Indexes, columns: Indexes) -> list[Floats]:
    """Some pixels of images hxwxC float32, if they were enlarged linearly to `shape` (rows, columns): NxC each.

    rows, columns: places of the N pixels in the enlarged image. A place is exact to 1/32 of a pixel of the images.
    """
    count, (height, width) = len(rows), values[0].shape[:2]
    table = -(-count // SAMPLED_SIDE), SAMPLED_SIDE
    y, x = (
        np.resize((index.astype(np.float32) + np.float32(0.5)) * np.float32(small / large) - np.float32(0.5), table)
        for index, small, large in ((rows, height, shape[0]), (columns, width, shape[1]))
    )
    found = (cv2.remap(one, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in values)
    return [np.asarray(one.reshape(y.size, -1)[:count], np.float32) for one in found]


def halved(values: NDArray[Any]) -> NDArray[Any]:
    """Halves HxW or HxWxC by 2 x 2 means; the last row or column of an odd side is a copy of the one before it."""
    height, width = values.shape[:2]
    even = values[: max(2, height) // 2 * 2, : max(2, width) // 2 * 2]
    half = cv2.resize(even, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
    bottom, right = (height + 1) // 2 - half.shape[0], (width + 1) // 2 - half.shape[1]
    if bottom or right:
        half = cv2.copyMakeBorder(half, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return half.reshape((height + 1) // 2, (width + 1) // 2, *values.shape[2:])
