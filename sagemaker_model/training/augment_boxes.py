"""Random training samples for a detector: images whose boxes follow each flip, crop and change of scale.

Boxes are Nx4 float32, x0, y0, x1, y1 in pixels, x0 < x1 and y0 < y1, inside the image. Coordinates lie between pixels:
the first pixel of a row is from 0 to 1. So a flip maps x to width - x, not to width - 1 - x, and must exchange x0 and
x1: an older system did not, and trained with boxes of negative width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from sagemaker_model.data.detection import Bools, Floats, Labels
from sagemaker_model.imaging.letterbox import Placement, letterboxed
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.training.augment import recolour

CROP_PROBABILITY, CROP_SHARE, CROP_ATTEMPTS = 0.5, (0.4, 1.0), 10
"""Share of the samples that are cropped; range of a crop's sides, as a share of the image's sides; number of random
crops that are tried until one shows a box."""

VISIBLE_MIN = 0.3
"""Share of a box's area that a crop must show to keep the box: of less, the class cannot be recognised."""

SIDE_MIN = 1.0
"""Pixels of a box's shorter side after a change of scale, below which the box is left out."""

ZOOM = (0.5, 1.0)
"""Range of the longer side of an image in its square, as a share of the square's side."""


class BoxedImage(NamedTuple):
    """An image with boxes. image: HxWx3 uint8 sRGB. boxes: Nx4 float32, pixels. labels: N int64."""

    image: Pixels
    boxes: Floats
    labels: Labels

    def kept(self, which: Bools) -> BoxedImage:
        """Returns the same image with some of its boxes. which: N bool."""
        return BoxedImage(self.image, self.boxes[which], self.labels[which])


def augment(sample: BoxedImage, side: int, random: Generator) -> BoxedImage:
    """Returns a random sample of side x side pixels: flipped in half of the cases, cropped in some, recoloured, scaled,
    and at a random place of a grey square."""
    if random.random() < 0.5:
        sample = flip(sample)
    if random.random() < CROP_PROBABILITY:
        sample = random_crop(sample, random)
    sample = sample._replace(image=recolour(sample.image, random))
    longer = max(1, round(side * random.uniform(*ZOOM)))
    return letterbox(sample, side, longer=longer, at=(random.random(), random.random()))[0]


def flip(sample: BoxedImage) -> BoxedImage:
    """Mirrors an image and its boxes horizontally."""
    x0, y0, x1, y1 = sample.boxes.T
    width = np.float32(sample.image.shape[1])
    boxes = np.stack((width - x1, y0, width - x0, y1), 1)
    return BoxedImage(np.ascontiguousarray(sample.image[:, ::-1]), boxes, sample.labels)


def crop(sample: BoxedImage, area: tuple[int, int, int, int]) -> BoxedImage:
    """Cuts out an area, x0, y0, x1, y1 in pixels inside the image. Clips boxes to it, and leaves out those of which it
    shows less than VISIBLE_MIN, or less than a pixel."""
    x0, y0, x1, y1 = area
    inside = np.clip(sample.boxes, (x0, y0, x0, y0), (x1, y1, x1, y1))
    sides, sides_before = inside[:, 2:] - inside[:, :2], sample.boxes[:, 2:] - sample.boxes[:, :2]
    visible = (sides.prod(1) >= VISIBLE_MIN * sides_before.prod(1)) & _wide(inside)
    boxes = (inside - np.array((x0, y0, x0, y0))).astype(np.float32)
    return BoxedImage(sample.image[y0:y1, x0:x1], boxes, sample.labels).kept(visible)


def random_crop(sample: BoxedImage, random: Generator) -> BoxedImage:
    """Cuts out a random area that shows a box; returns the sample unchanged if random areas show none."""
    height, width = sample.image.shape[:2]
    for _ in range(CROP_ATTEMPTS):
        columns, rows = (max(1, round(size * random.uniform(*CROP_SHARE))) for size in (width, height))
        x, y = int(random.integers(width - columns + 1)), int(random.integers(height - rows + 1))
        cropped = crop(sample, (x, y, x + columns, y + rows))
        if len(cropped.boxes) or not len(sample.boxes):
            return cropped
    return sample


def letterbox(
    sample: BoxedImage, side: int, *, longer: int | None = None, at: tuple[float, float] = (0.5, 0.5)
) -> tuple[BoxedImage, Placement]:
    """Scales an image to a square of side x side with its aspect ratio, padded with grey.

    longer: pixels of the image's longer side in the square (default: side). at: share of the padding to the left and
    above, 0..1. Boxes with a side below SIDE_MIN are left out.
    """
    square, placement = letterboxed(sample.image, side, longer=longer, at=at)
    boxes = placement.to_square(sample.boxes)
    return BoxedImage(square, boxes, sample.labels).kept(_wide(boxes)), placement


def _wide(boxes: Floats) -> Bools:
    return np.asarray((boxes[:, 2:] - boxes[:, :2] >= SIDE_MIN).all(1), np.bool_)
