"""Variety: other places, sizes, turns, colours, cameras and backgrounds for the same images.

What moves pixels moves those of the image and of its mask by one and the same warp, and what changes colours changes
the image alone: so the mask stays as exact as it was. Every chance is drawn from the generator that is handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from sagemaker_model.data.compose import lifted, put
from sagemaker_model.data.records import Record
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

TURN = 12.0
"""Degrees to either side: cameras are held about upright."""

CROP = (0.5, 1.0)
"""Of the image's sides that are seen."""

SUBJECT, FAR_SUBJECT = (0.45, 1.1), (0.12, 0.4)
"""Of the square, the longer side of a subject that is put on another background; and of one that is far away."""

STRETCH = 0.35
"""Logarithm of how much wider or narrower than it is a subject is shown at most: engines squeeze images of 16:9 into
a square."""

CLOSE, MARGIN = 0.4, 0.3
"""Share of the samples that show the padded box of the subject, squeezed to a square as the second of two passes sees
it; and the padding on each side at most, of the box. Without these, a network that is fine-tuned unlearns to see
people who are stretched to three times their width."""

FAR, SECOND = 0.3, 0.25
"""Share of the composed samples with a far subject, and with a second one."""


def augmented(
    record: Record,
    side: int,
    random: Generator,
    *,
    composed: float,
    empty: float,
    backgrounds: Sequence[Callable[[], Pixels]],
    another: Callable[[], Record],
) -> tuple[Pixels, Pixels]:
    """(image side x side x 3, alpha side x side), both uint8.

    composed: share of the samples whose subject comes on one of the `backgrounds`, HxWx3. empty: share of those that
    are a background alone. another: gives a record for a second subject. Raises BadRecord of what it reads.
    """
    kind = random.random() if backgrounds else 1.0
    subject = bool(record.mask.any())
    if kind < empty or (kind < empty + composed and subject):
        behind = backgrounds[random.integers(len(backgrounds))]()
        picture = recoloured(crop(behind.shape[:2], side, random)(behind), random)
        alpha = np.zeros((side, side), np.uint8)
        if kind >= empty:
            picture, alpha = _added(record, boxed if random.random() < CLOSE else placed, picture, alpha, random)
            if random.random() < SECOND:
                picture, alpha = _added(another(), placed, picture, alpha, random)
    else:
        close = subject and random.random() < CLOSE
        warp = boxed(record.mask, side, random) if close else crop(record.mask.shape, side, random)
        picture, alpha = warp(record.image), warp(record.mask)
    return recoloured(picture, random), alpha


@dataclass(frozen=True)
class Warp:
    """An affine map into a square, by pixels: matrix 2x3 from the source's (x, y, 1) to the square's (x, y).

    Where the square is smaller than what it shows, pixels
    are averaged first: picking some would leave jagged hair.
    """

    matrix: NDArray[np.float64]
    side: int

    def __call__(self, pixels: Pixels, border: int = cv2.BORDER_REFLECT_101) -> Pixels:
        """HxW or HxWx3. border: what lies outside of the source, as OpenCV calls it."""
        height, width = pixels.shape[:2]
        shrunk = np.linalg.norm(self.matrix[:, 0]), np.linalg.norm(self.matrix[:, 1])
        small = max(1, math.ceil(width * min(1.0, shrunk[0]))), max(1, math.ceil(height * min(1.0, shrunk[1])))
        if small != (width, height):
            pixels = resized(pixels, small, halve=False)
        # Pixels have their place in their middle: the centre of the first is (0.5, 0.5).
        finer = np.diag((width / small[0], height / small[1], 1.0))
        matrix = _moved(-0.5, -0.5) @ np.vstack((self.matrix, (0, 0, 1))) @ finer @ _moved(0.5, 0.5)
        warped = cv2.warpAffine(pixels, matrix[:2], (self.side, self.side), flags=cv2.INTER_LINEAR, borderMode=border)
        return warped.astype(np.uint8, copy=False)


def crop(shape: tuple[int, ...], side: int, random: Generator) -> Warp:
    """A part of an image, HxW. Its shape is between a square and the image's own: engines squeeze or they do not."""
    height, width = shape[:2]
    squeezed, share = random.random(), random.uniform(*CROP)
    wide = share * min(width, height) ** (1 - squeezed) * width**squeezed
    high = share * min(width, height) ** (1 - squeezed) * height**squeezed
    x = width / 2 + random.uniform(-0.5, 0.5) * (width - wide)
    y = height / 2 + random.uniform(-0.5, 0.5) * (height - high)
    return Warp(_affine((x, y), (side / wide, side / high), (side / 2, side / 2), random), side)


def placed(mask: Pixels, side: int, random: Generator) -> Warp:
    """A subject somewhere in the square, most of it inside. One that its own image cut off below is cut off again."""
    x, y, width, height = cv2.boundingRect(mask)
    size = side * random.uniform(*(FAR_SUBJECT if random.random() < FAR else SUBJECT))
    stretch = math.exp(random.uniform(-STRETCH, STRETCH))
    scale = np.array((stretch, 1 / stretch)) * size / max(width * stretch, height / stretch)
    to_x, to_y = random.uniform(0.15, 0.85, 2) * side
    if mask[-1].any():
        to_y = side - random.uniform(0.25, 0.45) * height * scale[1]
    return Warp(_affine((x + width / 2, y + height / 2), scale, (to_x, to_y), random), side)


def boxed(mask: Pixels, side: int, random: Generator) -> Warp:
    """A subject's box and a margin on each side as far as the image goes, squeezed to the square."""
    x, y, width, height = cv2.boundingRect(mask)
    left, right, top, bottom = random.uniform(0, MARGIN, 4) * (width, width, height, height)
    x0, x1 = max(0.0, x - left), min(mask.shape[1], x + width + right)
    y0, y1 = max(0.0, y - top), min(mask.shape[0], y + height + bottom)
    scale = side / (x1 - x0), side / (y1 - y0)
    return Warp(_affine(((x0 + x1) / 2, (y0 + y1) / 2), scale, (side / 2, side / 2), random), side)


def recoloured(picture: Pixels, random: Generator) -> Pixels:
    """The same image by another camera, light and compression."""
    if random.random() < 0.8:
        gain = random.uniform(0.7, 1.3) * random.uniform(0.9, 1.1, 3)
        gamma, shift = random.uniform(0.7, 1.4), random.uniform(-0.08, 0.08)
        levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain + shift
        picture = cv2.LUT(picture, _bytes(levels * 255)[None])
    if random.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        much = 0.0 if random.random() < 0.1 else random.uniform(0.5, 1.5)  # of colour; some photos have none
        picture = cv2.addWeighted(picture, much, grey, 1 - much, 0)
    if random.random() < 0.2:
        picture = cv2.GaussianBlur(picture, (0, 0), random.uniform(0.4, 1.8))
    elif random.random() < 0.1:
        picture = cv2.filter2D(picture, -1, _shaken(random))
    if random.random() < 0.3:
        picture = _bytes(picture + random.normal(0, random.uniform(2, 12), picture.shape))
    if random.random() < 0.3:
        quality = int(random.integers(30, 96))
        _, jpeg = cv2.imencode(".jpg", picture, (cv2.IMWRITE_JPEG_QUALITY, quality))
        picture = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
    return picture.astype(np.uint8, copy=False)


def _added(
    record: Record,
    place: Callable[[Pixels, int, Generator], Warp],
    picture: Pixels,
    alpha: Pixels,
    random: Generator,
) -> tuple[Pixels, Pixels]:
    """With this record's subject in front, where it has one."""
    colours, own = lifted(record.image, record.mask)
    if not own.any():  # so thin that drawing it in left nothing
        return picture, alpha
    warp = place(own, len(picture), random)
    colours, own = warp(colours), warp(own, cv2.BORDER_CONSTANT)
    behind = (255 - own.astype(np.float32)) / 255
    return put(colours, own, picture), np.rint(own + behind * alpha).astype(np.uint8)


def _shaken(random: Generator) -> NDArray[np.float32]:
    """The kernel of a camera that moved by 3 to 9 pixels in some direction."""
    length, angle = int(random.integers(3, 10)), random.uniform(0, 180)
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    middle = (length - 1) / 2
    kernel = cv2.warpAffine(line, cv2.getRotationMatrix2D((middle, middle), angle, 1), (length, length))
    return (kernel / kernel.sum()).astype(np.float32)


def _affine(
    of: tuple[float, float], scale: Sequence[float] | NDArray[np.float64], to: tuple[float, float], random: Generator
) -> NDArray[np.float64]:
    """2x3: mirrored or not, scaled, turned a little; the point `of` comes to `to`."""
    angle = math.radians(random.uniform(-TURN, TURN))
    mirror = -1.0 if random.random() < 0.5 else 1.0
    turn = np.array(((math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0), (0, 0, 1)))
    return (_moved(*to) @ turn @ np.diag((mirror * scale[0], scale[1], 1.0)) @ _moved(-of[0], -of[1]))[:2]


def _moved(x: float, y: float) -> NDArray[np.float64]:
    return np.array(((1.0, 0, x), (0, 1, y), (0, 0, 1)))


def _bytes(values: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
