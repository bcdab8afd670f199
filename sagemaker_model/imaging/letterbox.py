"""Letterboxing: scales an image into a square with its aspect ratio, and maps boxes between both."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

GREY = 114
"""Value of padding, 0..255: about the mean of photos, and used at inference too."""

Floats = NDArray[np.float32]


class Placement(NamedTuple):
    """The position of an image in a square. scale: (x, y), pixels of the square per pixel of the image. offset: (x, y)
    of the image's first pixel, in pixels of the square. size: (width, height) of the image, in its own pixels."""

    scale: tuple[float, float]
    offset: tuple[int, int]
    size: tuple[int, int]

    def to_square(self, boxes: Floats) -> Floats:
        """Maps boxes from the image to the square."""
        return np.asarray(boxes * np.array(self.scale * 2) + np.array(self.offset * 2), np.float32)

    def to_image(self, boxes: Floats) -> Floats:
        """Maps boxes from the square to the image, clipped to it. A box in the padding becomes empty."""
        inside = np.clip((boxes - np.array(self.offset * 2)) / np.array(self.scale * 2), 0, np.array(self.size * 2))
        return np.asarray(inside, np.float32)


def letterboxed(
    image: Pixels, side: int, *, longer: int | None = None, at: tuple[float, float] = (0.5, 0.5)
) -> tuple[Pixels, Placement]:
    """Scales an image, HxWx3 uint8, to a square of side x side with its aspect ratio, padded with grey.

    longer: pixels of the image's longer side in the square (default: side). at: share of the padding to the left and
    above, 0..1.
    """
    height, width = image.shape[:2]
    scale = (longer or side) / max(width, height)
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    offset = round((side - columns) * at[0]), round((side - rows) * at[1])
    square = np.full((side, side, 3), GREY, np.uint8)
    square[offset[1] : offset[1] + rows, offset[0] : offset[0] + columns] = resized(image, (columns, rows), halve=False)
    return square, Placement((columns / width, rows / height), offset, (width, height))
