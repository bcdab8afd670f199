"""Planes: soft shapes on a coarse grid around the subject, enlarged row by row where the result is composited.

A plane is in the coordinates of the image, so crop, scale and position move it with its subject.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.background import Colour
from sagemaker_model.imaging.composite import BAYER, Floats, Pixels, Rows, solid

Opacity = Callable[[Floats, slice], Pixels]
"""Returns the opacity, HxW uint8, for values of a plane, HxW, in a range of rows of the canvas."""


@dataclass(frozen=True, slots=True)
class Plane:
    """A shape of one colour.

    values: HxW, 0 at the border and outside the shape. origin: x and y of the plane's corner in the image, in pixels.
    scale: plane's pixels for one pixel of the image, across and down.
    """

    values: NDArray[Any]
    origin: tuple[float, float]
    scale: tuple[float, float]
    colour: Colour

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """x0, y0, x1, y1 around the shape in the image's pixels; may extend beyond the image. None without one."""
        x, y, width, height = cv2.boundingRect(np.asarray(self.values > 0, np.uint8))
        if width == 0:
            return None
        left, top = self.origin[0] + x / self.scale[0], self.origin[1] + y / self.scale[1]
        right, bottom = left + width / self.scale[0], top + height / self.scale[1]
        return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)

    def layer(
        self,
        window: tuple[int, int, int, int],
        place: tuple[int, int, int, int],
        size: tuple[int, int],
        opacity: Opacity,
    ) -> Rows:
        """Draws the plane on a canvas of `size` (width, height), on which `window` of the image is at `place`."""
        colour, _ = solid(self.colour, size)
        axes = []
        for axis, length in enumerate(size):
            scale = (place[axis + 2] - place[axis]) / (window[axis + 2] - window[axis])
            image = (np.arange(length) + 0.5 - place[axis]) / scale + window[axis]
            on_plane = (image - self.origin[axis]) * self.scale[axis] - 0.5
            axes.append(_neighbours(on_plane, self.values.shape[1 - axis]))
        (left, right, across), (above, below, down) = axes

        def draw(rows: slice) -> tuple[Pixels, Pixels]:
            first, last = above[rows][0], below[rows][-1]
            lines = self.values[first : last + 1].astype(np.float32)
            reached = np.flatnonzero(lines.any(axis=0))
            alpha = np.zeros((rows.stop - rows.start, size[0]), np.uint8)
            if reached.size:
                start = int(np.searchsorted(right, reached[0]))
                start -= start % len(BAYER)  # the pattern of `dithered` begins at the first column
                columns = slice(start, int(np.searchsorted(left, reached[-1], "right")))
                wide = lines.take(left[columns], axis=1)
                wide += (lines.take(right[columns], axis=1) - wide) * across[columns]
                values = wide.take(above[rows] - first, axis=0)
                values += (wide.take(below[rows] - first, axis=0) - values) * down[rows, None]
                alpha[:, columns] = opacity(values, rows)
            return colour[: len(alpha)], alpha

        return draw


def _neighbours(positions: NDArray[np.floating], length: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
    """The pixels before and after each position on a line of `length` pixels, and the weight of the one after."""
    positions = np.clip(positions, 0, length - 1)
    before = np.floor(positions).astype(np.int32)
    return before, np.minimum(before + 1, np.int32(length - 1)), (positions - before).astype(np.float32)
