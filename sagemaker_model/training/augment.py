"""Augmentation: random crops, sizes, rotations, colours, camera effects and backgrounds of a record.

Geometric changes apply one warp to the image and its mask; colour changes apply to the image alone, so the mask stays
exact. All randomness comes from the generator that the caller passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.random import Generator
from numpy.typing import NDArray

from sagemaker_model.data.compose import blend, extract_subject
from sagemaker_model.data.records import Record
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

ROTATION_MAX = 12.0
"""Maximum rotation either way, in degrees: cameras are held about upright."""

CROP_SHARE = (0.5, 1.0)
"""Range of a crop's sides, as a share of the image's sides."""

SUBJECT_SIZE, FAR_SUBJECT_SIZE = (0.45, 1.1), (0.12, 0.4)
"""Ranges of the longer side of a composed subject, and of a distant one, as a share of the square's side."""

LOG_STRETCH_MAX = 0.35
"""Maximum logarithm of a subject's change of aspect ratio: engines squeeze images of 16:9 into a square."""

BOX_SHARE, BOX_MARGIN_MAX = 0.4, 0.3
"""Share of the samples that show the padded box of the subject, squeezed to a square as in the second of two passes;
and the maximum padding on each side, as a share of the box. Without these samples, a fine-tuned network gets worse
at people who are stretched to three times their width."""

FAR_SHARE, SECOND_SUBJECT_SHARE = 0.3, 0.25
"""Shares of the composed samples with a distant subject, and with a second subject."""


def augment(
    record: Record,
    side: int,
    random: Generator,
    *,
    composed: float,
    empty: float,
    backgrounds: Sequence[Callable[[], Pixels]],
    another: Callable[[], Record],
) -> tuple[Pixels, Pixels]:
    """Returns a random training sample, (image side x side x 3, alpha side x side), both uint8.

    composed: share of the samples with the subject on one of the `backgrounds`, HxWx3 uint8. empty: share of the
    samples that are a background alone. another: returns a record for a second subject.
    Raises BadRecord if a background or the other record is unreadable.
    """
    draw = random.random() if backgrounds else 1.0
    has_subject = bool(record.mask.any())
    if draw < empty or (draw < empty + composed and has_subject):
        background = backgrounds[int(random.integers(len(backgrounds)))]()
        image = recolour(random_crop(background.shape[:2], side, random)(background), random)
        alpha = np.zeros((side, side), np.uint8)
        if draw >= empty:
            place = random_box if random.random() < BOX_SHARE else random_placement
            image, alpha = _add_subject(record, place, image, alpha, random)
            if random.random() < SECOND_SUBJECT_SHARE:
                image, alpha = _add_subject(another(), random_placement, image, alpha, random)
    else:
        close_up = has_subject and random.random() < BOX_SHARE
        warp = random_box(record.mask, side, random) if close_up else random_crop(record.mask.shape, side, random)
        image, alpha = warp(record.image), warp(record.mask)
    return recolour(image, random), alpha


@dataclass(frozen=True)
class Warp:
    """An affine warp into a square, in pixels.

    matrix: 2x3, from (x, y, 1) of the source to (x, y) of the square. Where the warp shrinks, pixels are averaged
    first: sampling single pixels would give hair jagged edges.
    """

    matrix: NDArray[np.float64]
    side: int

    def __call__(self, pixels: Pixels, border: int = cv2.BORDER_REFLECT_101) -> Pixels:
        """Warps HxW or HxWx3 uint8. border: OpenCV's mode for pixels outside the source."""
        source: MatLike = pixels
        height, width = pixels.shape[:2]
        scale = np.linalg.norm(self.matrix[:, 0]), np.linalg.norm(self.matrix[:, 1])
        small = max(1, math.ceil(width * min(1.0, scale[0]))), max(1, math.ceil(height * min(1.0, scale[1])))
        if small != (width, height):
            source = resized(source, small, halve=False)
        # `matrix` puts the centre of the first pixel at (0.5, 0.5), OpenCV at (0, 0).
        enlarge = np.diag((width / small[0], height / small[1], 1.0))
        matrix = _translation(-0.5, -0.5) @ np.vstack((self.matrix, (0, 0, 1))) @ enlarge @ _translation(0.5, 0.5)
        warped = cv2.warpAffine(source, matrix[:2], (self.side, self.side), flags=cv2.INTER_LINEAR, borderMode=border)
        return warped.astype(np.uint8, copy=False)


def random_crop(shape: tuple[int, ...], side: int, random: Generator) -> Warp:
    """Returns a warp of a random part of an image, HxW. The part's aspect ratio is between a square and the image's
    own, because some engines squeeze images and some do not."""
    height, width = shape[:2]
    squeeze, share = random.random(), random.uniform(*CROP_SHARE)
    crop_width = share * min(width, height) ** (1 - squeeze) * width**squeeze
    crop_height = share * min(width, height) ** (1 - squeeze) * height**squeeze
    x = width / 2 + random.uniform(-0.5, 0.5) * (width - crop_width)
    y = height / 2 + random.uniform(-0.5, 0.5) * (height - crop_height)
    return Warp(_random_affine((x, y), (side / crop_width, side / crop_height), (side / 2, side / 2), random), side)


def random_placement(mask: Pixels, side: int, random: Generator) -> Warp:
    """Returns a warp of a subject to a random place, mostly inside the square. A subject that its image cuts off at the
    bottom stays cut off there."""
    x, y, width, height = cv2.boundingRect(mask)
    size = side * random.uniform(*(FAR_SUBJECT_SIZE if random.random() < FAR_SHARE else SUBJECT_SIZE))
    stretch = math.exp(random.uniform(-LOG_STRETCH_MAX, LOG_STRETCH_MAX))
    scale = np.array((stretch, 1 / stretch)) * size / max(width * stretch, height / stretch)
    to_x, to_y = random.uniform(0.15, 0.85, 2) * side
    if mask[-1].any():
        to_y = side - random.uniform(0.25, 0.45) * height * scale[1]
    return Warp(_random_affine((x + width / 2, y + height / 2), scale, (to_x, to_y), random), side)


def random_box(mask: Pixels, side: int, random: Generator) -> Warp:
    """Returns a warp of a subject's box, with random margins inside the image, squeezed to the square."""
    x, y, width, height = cv2.boundingRect(mask)
    left, right, top, bottom = random.uniform(0, BOX_MARGIN_MAX, 4) * (width, width, height, height)
    x0, x1 = max(0.0, x - left), min(mask.shape[1], x + width + right)
    y0, y1 = max(0.0, y - top), min(mask.shape[0], y + height + bottom)
    scale = side / (x1 - x0), side / (y1 - y0)
    return Warp(_random_affine(((x0 + x1) / 2, (y0 + y1) / 2), scale, (side / 2, side / 2), random), side)


def recolour(image: Pixels, random: Generator) -> Pixels:
    """Changes colours, saturation, sharpness, noise and JPEG compression at random. HxWx3 uint8."""
    result: MatLike = image
    if random.random() < 0.8:
        gain = random.uniform(0.7, 1.3) * random.uniform(0.9, 1.1, 3)
        gamma, shift = random.uniform(0.7, 1.4), random.uniform(-0.08, 0.08)
        levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain + shift
        result = cv2.LUT(result, _to_uint8(levels * 255)[None])
    if random.random() < 0.5:
        grey = cv2.cvtColor(cv2.cvtColor(result, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        saturation = 0.0 if random.random() < 0.1 else random.uniform(0.5, 1.5)  # 0: black and white
        result = cv2.addWeighted(result, saturation, grey, 1 - saturation, 0)
    if random.random() < 0.2:
        result = cv2.GaussianBlur(result, (0, 0), random.uniform(0.4, 1.8))
    elif random.random() < 0.1:
        result = cv2.filter2D(result, -1, _motion_blur_kernel(random))
    if random.random() < 0.3:
        result = _to_uint8(result + random.normal(0, random.uniform(2, 12), result.shape))
    if random.random() < 0.3:
        quality = int(random.integers(30, 96))
        _, jpeg = cv2.imencode(".jpg", result, (cv2.IMWRITE_JPEG_QUALITY, quality))
        result = np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)
    return result.astype(np.uint8, copy=False)


def _add_subject(
    record: Record,
    place: Callable[[Pixels, int, Generator], Warp],
    image: Pixels,
    alpha: Pixels,
    random: Generator,
) -> tuple[Pixels, Pixels]:
    """Puts the record's subject in front of a sample (image, alpha); returns the sample unchanged without a subject."""
    colours, subject_alpha = extract_subject(record.image, record.mask)
    if not subject_alpha.any():  # eroding a very thin subject leaves no pixel
        return image, alpha
    warp = place(subject_alpha, len(image), random)
    colours, subject_alpha = warp(colours), warp(subject_alpha, cv2.BORDER_CONSTANT)
    transparency = (255 - subject_alpha.astype(np.float32)) / 255
    return blend(colours, subject_alpha, image), np.rint(subject_alpha + transparency * alpha).astype(np.uint8)


def _motion_blur_kernel(random: Generator) -> NDArray[np.float32]:
    """Returns the kernel of a camera that moved by 3 to 9 pixels in a random direction."""
    length, angle = int(random.integers(3, 10)), random.uniform(0, 180)
    line = np.zeros((length, length), np.float32)
    line[length // 2] = 1
    middle = (length - 1) / 2
    kernel = cv2.warpAffine(line, cv2.getRotationMatrix2D((middle, middle), angle, 1), (length, length))
    return np.asarray(kernel / kernel.sum(), np.float32)


def _random_affine(
    source: tuple[float, float],
    scale: Sequence[float] | NDArray[np.float64],
    target: tuple[float, float],
    random: Generator,
) -> NDArray[np.float64]:
    """Returns a matrix 2x3 that scales, mirrors in half of the cases, rotates a little, and maps the point `source` to
    `target`."""
    angle = math.radians(random.uniform(-ROTATION_MAX, ROTATION_MAX))
    mirror = -1.0 if random.random() < 0.5 else 1.0
    rotation = np.array(((math.cos(angle), -math.sin(angle), 0), (math.sin(angle), math.cos(angle), 0), (0, 0, 1)))
    scaling = np.diag((mirror * scale[0], scale[1], 1.0))
    matrix: NDArray[np.float64] = _translation(*target) @ rotation @ scaling @ _translation(-source[0], -source[1])
    return matrix[:2]


def _translation(x: float, y: float) -> NDArray[np.float64]:
    return np.array(((1.0, 0, x), (0, 1, y), (0, 0, 1)))


def _to_uint8(values: NDArray[np.floating]) -> Pixels:
    rounded: NDArray[np.floating] = np.clip(np.rint(values), 0, 255)
    return rounded.astype(np.uint8)
