"""Draws the strokes of a brush into an alpha, tile by tile, so that memory does not grow with the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.errors import InvalidOptions
from maskdrop.strokes import WIDTH_MAX, Stroke
from sagemaker_model.imaging.pixels import Pixels

TILE = 1024
"""Side of a tile in pixels. Its distances to the line need a margin of the brush's radius, at most 1,000 pixels: 50 MB
for a tile."""

DRAWN_MAX = 64 * 12_000_000
"""Maximum pixels of all tiles with their margins: 64 strokes across a whole image of 12 MP. They take
15 s on one busy core."""

SEGMENTS_AT_ONCE = 256
"""Segments of a line whose pixels are computed at once, to limit memory: 6 MB for a tile of TILE pixels."""


Points = NDArray[np.float64]


def draw_strokes(alpha: Pixels, strokes: Sequence[Stroke], source: Pixels | None = None) -> Pixels:
    """Returns a copy of an alpha, HxW uint8, with the strokes drawn in their order.

    A stroke with the coverage c, 0 to 1, changes the alpha a to a(1 - c) (erase) or to a + (m - a)c (restore). m is
    255, or the source's own alpha, HxW uint8: a restored pixel shows nothing that the source hides. Raises
    InvalidOptions for strokes that cover more than DRAWN_MAX.
    """
    result = alpha.copy()
    tiles = [tile for stroke in strokes for tile in _tiles(stroke, *alpha.shape)]
    drawn = sum(tile.drawn for tile in tiles)
    if drawn > DRAWN_MAX:
        raise InvalidOptions(
            f'"strokes" may cover at most {DRAWN_MAX / 1e6:,.0f} megapixels, each with the rectangle around it; got '
            f"{drawn / 1e6:,.0f}. Send fewer, shorter or thinner strokes."
        )
    for tile in tiles:
        coverage = tile.coverage()
        if coverage is None:
            continue
        place = slice(tile.y0, tile.y1), slice(tile.x0, tile.x1)
        before = result[place].astype(np.float32)
        opaque = np.float32(255) if source is None else np.maximum(source[place].astype(np.float32), before)
        after = opaque if tile.stroke.mode == "restore" else np.float32(0)
        result[place] = np.rint(before + (after - before) * coverage).astype(np.uint8)
    return result


@dataclass(frozen=True, slots=True)
class _Tile:
    """The part of a stroke in a rectangle of the image, in pixels. radius: of the brush, in pixels."""

    stroke: Stroke
    radius: float
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def margin(self) -> int:
        return math.ceil(self.radius) + 1

    @property
    def drawn(self) -> int:
        """Pixels whose distance to the line is computed."""
        return (self.y1 - self.y0 + 2 * self.margin) * (self.x1 - self.x0 + 2 * self.margin)

    def coverage(self) -> NDArray[np.float32] | None:
        """Returns the coverage of each pixel, 0 to 1; None where the line does not reach the tile.

        It is 1 within hardness * radius of the line, and falls to 0 over the rest of the radius, at least one pixel.
        Distances are between the centres of pixels and those of the line's pixels.
        """
        margin = self.margin
        off_line = np.full((self.y1 - self.y0 + 2 * margin, self.x1 - self.x0 + 2 * margin), 255, np.uint8)
        _draw_line(off_line, self.stroke, self.x0 - margin, self.y0 - margin)
        if off_line.all():
            return None
        distance = cv2.distanceTransform(off_line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[margin:-margin, margin:-margin]
        fall = max(1.0, self.radius * (1 - self.stroke.hardness))
        return np.asarray(np.clip((self.radius + 0.5 - distance) / fall, 0, 1), np.float32)


def _draw_line(off_line: Pixels, stroke: Stroke, x0: int, y0: int) -> None:
    """Sets the pixels of a stroke's line to 0 in the part of the image at x0, y0, HxW uint8.

    A segment has one pixel in each column, or in each row if it is steep. OpenCV's lines depend on the edges of the
    part, which leaves seams between tiles.
    """
    points = np.array(stroke.points)
    starts, ends = (points, points) if len(points) == 1 else (points[:-1], points[1:])
    steep = np.abs(ends - starts)[:, 1] > np.abs(ends - starts)[:, 0]
    for is_steep, part, corner in ((False, off_line, (x0, y0)), (True, off_line.T, (y0, x0))):
        axes = (1, 0) if is_steep else (0, 1)
        chosen = steep == is_steep
        first, last = starts[chosen][:, axes], ends[chosen][:, axes]
        for index in range(0, len(first), SEGMENTS_AT_ONCE):
            several = slice(index, index + SEGMENTS_AT_ONCE)
            _draw_segments(part, first[several], last[several], *corner)


def _draw_segments(part: Pixels, first: Points, last: Points, column0: int, row0: int) -> None:
    """Sets one pixel in each column of every segment from `first` to `last`, Nx2, to 0 in `part`, at column0, row0."""
    height, width = part.shape
    low = np.maximum(np.floor(np.minimum(first, last)[:, 0]).astype(np.int64), column0)
    high = np.minimum(np.floor(np.maximum(first, last)[:, 0]).astype(np.int64), column0 + width - 1)
    counts = np.maximum(high - low + 1, 0)
    segment = np.repeat(np.arange(len(first)), counts)
    column = np.arange(len(segment)) - (np.cumsum(counts) - counts)[segment] + low[segment]
    across, down = (last - first)[segment].T
    x, y = first[segment].T
    share = np.clip((column + 0.5 - x) / np.where(across == 0, 1, across), 0, 1)
    row = np.floor(y + share * down).astype(np.int64) - row0
    inside = (row >= 0) & (row < height)
    part[row[inside], column[inside] - column0] = 0


def _tiles(stroke: Stroke, height: int, width: int) -> Iterator[_Tile]:
    """Yields the tiles of the rectangle around a stroke, inside an image of height x width pixels."""
    radius = min(stroke.width.of(max(height, width)), WIDTH_MAX["px"]) / 2
    reach = math.ceil(radius) + 1
    across, down = zip(*stroke.points, strict=True)
    left, right = max(0, math.floor(min(across)) - reach), min(width, math.ceil(max(across)) + reach)
    top, bottom = max(0, math.floor(min(down)) - reach), min(height, math.ceil(max(down)) + reach)
    for y in range(top, bottom, TILE):
        for x in range(left, right, TILE):
            yield _Tile(stroke, radius, x, y, min(x + TILE, right), min(y + TILE, bottom))
