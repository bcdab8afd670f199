"""From an engine's small matte to the image's own size.

The matte is enlarged; where it is uncertain, it follows the image's edges by a guided filter (He, Sun, Tang 2010)
whose coefficients are found at small size (He, Sun 2015). Elsewhere the filter would only bring halos. Mean IoU of
`selfie` on 241 images of people (`maskdrop evaluate`): 0.933 without the filter, 0.936 with it, 0.929 with it
everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels

Floats = NDArray[np.float32]
Box = tuple[slice, slice]
"""Rows and columns."""

GUIDE_SIDE = 1024
"""Pixels of the long side at which the filter's coefficients are found."""

RADIUS = 12
"""Pixels at that size: about as far as the edge of a matte of 256 pixels, spread over a person, can be off."""

SMOOTHNESS = 65.0
"""Variance of grey (0..255) below which the image counts as flat: about eight levels, squared."""

UNCERTAIN = 0.1
"""A matte between this and its complement follows the image wholly, outside less and less, at 0 and 1 not at all."""

HALVE_FROM = 4
"""Halving blurs a little: from 2 on, alpha differs by up to 6 levels, and the foreground's error grows by 3 %."""

CERTAIN = 1e-4
"""A matte nearer than this to 0 or 1 is taken as there: what it would follow of the image is a quarter of a level."""

TILE = 128
"""Pixels of a side of what is worked at once. Four in five tiles of a 12 MP photo have no edge in them."""


def to_full_size(matte: Floats, rgb: Pixels) -> Pixels:
    """Alpha HxW uint8 for `rgb` HxWx3 uint8, from a matte hxw float32 in 0..1 of any size that covers the image."""
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, GUIDE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = resized(matte, size)
    slope, offset = _coefficients(resized(grey, size), small)

    alpha = np.zeros((height, width), np.uint8)
    down, across = _Line.between(size[1], height), _Line.between(size[0], width)
    for rows, columns in tiles(height, width):
        y, x = down.part(rows), across.part(columns)
        here = small[y.source, x.source]
        low, high, _, _ = cv2.minMaxLoc(here)
        if high < CERTAIN:
            continue
        if low > 1 - CERTAIN:
            alpha[rows, columns] = 255
            continue
        weight = np.clip((0.5 - np.abs(here - 0.5)) / UNCERTAIN, 0, 1)
        maps = np.stack((here, weight, slope[y.source, x.source], offset[y.source, x.source]))
        values, follow, guided, rest = y.along(x.along(maps, 2), 1)
        guided *= grey[rows, columns]
        guided += rest
        values += follow * (guided - values)
        alpha[rows, columns] = np.clip(np.rint(values * 255), 0, 255)
    return alpha


def tiles(height: int, width: int) -> Iterator[Box]:
    """Each tile of an image."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            yield slice(top, min(top + TILE, height)), slice(left, min(left + TILE, width))


def boxes(mask: Pixels) -> Iterator[Box]:
    """Around all that is not 0 in each tile of a mask HxW uint8, where there is any."""
    for rows, columns in tiles(*mask.shape):
        x, y, width, height = cv2.boundingRect(mask[rows, columns])
        if width:
            top, left = rows.start + y, columns.start + x
            yield slice(top, top + height), slice(left, left + width)


def resized(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """`values` HxW or HxWxC at `size` (width, height): means where it shrinks, straight lines where it grows.

    What is HALVE_FROM times too large is halved first, where its sides are even: a mean of 2 x 2 bytes is ten times
    faster than any other (12 MP of RGB to 250 pixels: 5 ms instead of 25)."""
    width, height = size
    smaller = width * height < values.shape[0] * values.shape[1]
    while values.shape[0] >= HALVE_FROM * height and values.shape[1] >= HALVE_FROM * width:
        if values.shape[0] % 2 or values.shape[1] % 2:
            break
        values = cv2.resize(values, (values.shape[1] // 2, values.shape[0] // 2), interpolation=cv2.INTER_AREA)
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.resize(values, size, interpolation=method).reshape(height, width, *values.shape[2:])


def _coefficients(guide: Pixels, matte: Floats) -> tuple[Floats, Floats]:
    """The guided filter's line alpha = slope * grey + offset around each pixel, HxW each; 0 where nothing is uncertain.

    guide: grey, HxW uint8. matte: HxW float32 in 0..1. Only the boxes around edges are worked, and they stay in the
    cache: for a person who fills 1 MP 3.5 ms instead of 7."""
    slope, offset = np.zeros_like(matte), np.zeros_like(matte)
    for box in boxes(cv2.inRange(matte, CERTAIN, 1 - CERTAIN)):
        box = _widened(box, 1)  # a larger image's pixels lie between two of these
        around = _widened(box, 2 * RADIUS)
        here = tuple(slice(a.start - b.start, a.stop - b.start) for a, b in zip(box, around, strict=True))
        found = _fitted(guide[around], matte[around])
        slope[box], offset[box] = found[0][here], found[1][here]
    return slope, offset


def _fitted(guide: Pixels, matte: Floats) -> tuple[Floats, Floats]:
    """Slope and offset as if there were nothing beyond: 2 * RADIUS pixels from a side they are the image's."""
    mean_guide, mean_matte = _mean(guide), _mean(matte)
    variance = _mean(cv2.multiply(guide, guide, dtype=cv2.CV_16U))
    slope = _mean(cv2.multiply(guide, matte, dtype=cv2.CV_32F))
    variance -= mean_guide * mean_guide
    slope -= mean_guide * mean_matte  # the covariance
    slope /= variance + SMOOTHNESS
    return _mean(slope), _mean(mean_matte - slope * mean_guide)


def _mean(values: NDArray[Any]) -> Floats:
    """Over the square of RADIUS around each pixel."""
    side = (2 * RADIUS + 1, 2 * RADIUS + 1)
    return cv2.boxFilter(values, cv2.CV_32F, side, borderType=cv2.BORDER_REPLICATE).reshape(values.shape)


def _widened(box: Box, by: int) -> Box:
    """By so many pixels on each side; beyond the end of the image a slice ends by itself."""
    rows, columns = box
    return slice(max(0, rows.start - by), rows.stop + by), slice(max(0, columns.start - by), columns.stop + by)


@dataclass(frozen=True, slots=True)
class _Line:
    """Where the pixels of a long line, or of a part of it, lie between those of a short one. OpenCV's linear resize has
    them there too, but cannot start in the middle.

    source: the part of the short line that is needed. before, after: each pixel's neighbours in it. share: of `after`,
    0..1.
    """

    source: slice
    before: NDArray[np.intp]
    after: NDArray[np.intp]
    share: Floats

    @classmethod
    def between(cls, short: int, long: int) -> _Line:
        at = np.clip((np.arange(long) + 0.5) * (short / long) - 0.5, 0, short - 1)
        before, after = np.floor(at).astype(np.intp), np.ceil(at).astype(np.intp)
        return cls(slice(0, short), before, after, (at - before).astype(np.float32))

    def part(self, pixels: slice) -> _Line:
        before, after = self.before[pixels], self.after[pixels]
        first = before[0]
        return _Line(slice(first, after[-1] + 1), before - first, after - first, self.share[pixels])

    def along(self, values: Floats, axis: int) -> Floats:
        """`values`, already cut to `source`, enlarged along one axis."""
        if len(self.before) == values.shape[axis] and not self.share.any():  # as long as before
            return values
        share = self.share.reshape(-1, *[1] * (values.ndim - 1 - axis))
        mixed, after = values.take(self.before, axis), values.take(self.after, axis)
        after -= mixed
        after *= share
        mixed += after
        return mixed
