"""Estimates the subject's own colours where it is half transparent, to remove spill of the background's colour.

The model is I = aF + (1 - a)B. F (foreground) and B (background) are solved together on an image pyramid, from coarse
to fine: Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020. Here all pixels are updated at once (Jacobi
sweeps) rather than one by one.

Mean error of the composite on black in the half-transparent band: 5.4 of 255, against 11.0 with the image's colours
unchanged. Measured on twelve people with known colours and alpha on other backgrounds, at 1 MP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.refine import mask_boxes
from sagemaker_model.imaging.resize import resized

Floats = NDArray[np.float32]

SWEEPS = 6
"""Jacobi sweeps on each level of the pyramid."""

REGULARISATION = 1e-5
"""Weight between neighbours of equal alpha; the difference of their alphas is added to it."""

SOLVE_PIXELS_MAX = 60_000
"""Pixels of the size at which the colours are solved. Colours vary slowly, and the image's detail is restored
afterwards: with 250,000 pixels the error is 5.3 instead of 5.4, and the time three times as long."""

MARGIN = 32
"""Pixels around the band that are solved with it, at the solved size."""

CROP_MULTIPLE = 4
"""The sides of the crop around the band are multiples of this, so that `resized` can halve the crop twice."""


def estimate_foreground(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Replaces the colours of half-transparent pixels (0 < alpha < 255) by the subject's own; keeps the other pixels.

    rgb: HxWx3 uint8. alpha: HxW uint8. Returns a new HxWx3 uint8, or `rgb` itself if no pixel is half transparent.
    """
    band = cv2.inRange(alpha, 1, 254).reshape(alpha.shape)
    x, y, width, height = cv2.boundingRect(band)
    if width == 0:
        return rgb
    scale = min(1.0, math.sqrt(SOLVE_PIXELS_MAX / (width * height)))
    crop = _crop_range(y, height, scale), _crop_range(x, width, scale)
    image, matte, band = rgb[crop], alpha[crop], band[crop]
    height, width = matte.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    fore, back = (resized(colours, (width, height)) for colours in _solve(resized(image, size), resized(matte, size)))
    result = rgb.copy()
    for box in mask_boxes(band):
        colours = _restore_detail(image[box], matte[box], fore[box], back[box])
        cv2.copyTo(colours, band[box], result[crop][box])
    return result


def _crop_range(start: int, length: int, scale: float) -> slice:
    """Extends a range of rows or columns by MARGIN at both ends and rounds out to multiples of CROP_MULTIPLE.

    The stop may lie beyond the end of the image.
    """
    margin = math.ceil(MARGIN / scale)
    first, last = max(0, start - margin), start + length + margin
    return slice(first // CROP_MULTIPLE * CROP_MULTIPLE, -(-last // CROP_MULTIPLE) * CROP_MULTIPLE)


def _restore_detail(image: Pixels, alpha: Pixels, fore: Pixels, back: Pixels) -> Pixels:
    """Adds the image's fine detail, the residual I - (aF + (1 - a)B), to F in the share of a (Forte, 2021).

    Returns F, HxWx3 uint8.
    """
    a = cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB) / np.float32(255)
    f, b = fore.astype(np.float32), back.astype(np.float32)
    f += a * (image - (a * f + (1 - a) * b))
    return np.clip(np.rint(f), 0, 255).astype(np.uint8)


def _solve(rgb: Pixels, alpha: Pixels) -> tuple[Pixels, Pixels]:
    """Solves for F and B, each HxWx3 uint8, of an image HxWx3 uint8 and its alpha HxW uint8.

    Inside, all values are in 0..1: image and alpha as one array, HxWx4; F and B as planes, 6xHxW.
    """
    image = cv2.merge((rgb, alpha)) / np.float32(255)
    height, width = alpha.shape
    levels = max(1, math.ceil(math.log2(max(height, width))))
    colours = _means(image)
    for level in range(levels + 1):
        size = (
            max(1, round(width ** (level / levels))),
            max(1, round(height ** (level / levels))),
        )
        colours = _sweep(resized(image, size, halve=False), colours)
    fore, back = (cv2.convertScaleAbs(cv2.merge(list(planes)), alpha=255) for planes in (colours[:3], colours[3:]))
    return fore.reshape(rgb.shape), back.reshape(rgb.shape)


def _means(image: Floats) -> Floats:
    """Mean colours of an image HxWx4 weighted by alpha (F) and by 1 - alpha (B): 6x1x1."""
    pixels = image.reshape(-1, 4)
    weights = np.stack((pixels[:, 3], 1 - pixels[:, 3]))
    means: Floats = (weights @ pixels)[:, :3] / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    return means.reshape(6, 1, 1)


@dataclass(frozen=True, slots=True)
class _PaddedPlanes:
    """Planes with a border of one pixel, each stored as one line of H * W values, so that a neighbour is a shift.

    planes: NxHxW float32 in C order, border included. The neighbours of the value at index i of a line are at i - W
    (above), i + W (below), i - 1 (left) and i + 1 (right). NumPy is fast on such long runs: a quarter less time than on
    rows at 249 x 249.

    The inner line leaves out the first and the last row. It includes the border's left and right columns; the values
    computed there are meaningless, and `extend_border` overwrites them.
    """

    planes: Floats

    @classmethod
    def of(cls, planes: Sequence[MatLike]) -> _PaddedPlanes:
        """Adds the border to planes HxW."""
        height, width = planes[0].shape
        padded = cls(np.empty((len(planes), height + 2, width + 2), np.float32))
        np.stack(planes, out=padded.pixels)
        padded.extend_border()
        return padded

    @property
    def pixels(self) -> Floats:
        """The planes without the border."""
        return self.planes[:, 1:-1, 1:-1]

    @property
    def inner(self) -> Floats:
        """View of the inner lines, NxL."""
        return self._shifted(0)

    @property
    def neighbours(self) -> list[Floats]:
        """Views of the neighbours above, below, left and right of the inner lines, NxL each."""
        width = self.planes.shape[-1]
        return [self._shifted(shift) for shift in (-width, width, -1, 1)]

    def extend_border(self) -> None:
        """Copies the outermost pixels to the border."""
        planes = self.planes
        planes[:, 0, :], planes[:, -1, :] = planes[:, 1, :], planes[:, -2, :]
        planes[:, :, 0], planes[:, :, -1] = planes[:, :, 1], planes[:, :, -2]

    def _shifted(self, shift: int) -> Floats:
        """View of the inner lines, shifted by a number of values."""
        count, height, width = self.planes.shape
        start = width + shift
        return self.planes.reshape(count, -1)[:, start : start + (height - 2) * width]


def _sweep(image: Floats, colours: Floats) -> Floats:
    """Runs the Jacobi sweeps of one level: every pixel solves its own 2x2 system for F and B from its four neighbours.

    image: HxWx4. colours: F and B of the coarser level, 6xhxw of any size. All in 0..1. Returns 6xHxW.

    With v = (a, 1 - a) and t the sum of the neighbours' weights, the system is (t + v v^T)(F, B) = t M + v I; M is the
    neighbours' weighted mean. By the Sherman-Morrison formula (F, B) = M + v (I - v^T M) / (t + v^T v).
    """
    size = image.shape[1::-1]
    known = _PaddedPlanes.of(cv2.split(image))
    solved = _PaddedPlanes.of([cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST) for plane in colours])
    rgb, alpha = known.inner[:3], known.inner[3]
    weights = [REGULARISATION + np.abs(neighbour[3] - alpha) for neighbour in known.neighbours]
    total = np.sum(weights, axis=0)
    weights = [weight / total for weight in weights]
    v = np.stack((alpha, 1 - alpha))[:, None]
    gain = v / (total + (v * v).sum(axis=0))
    inner, *neighbours = (lines.reshape(2, 3, -1) for lines in (solved.inner, *solved.neighbours))  # views: F and B
    mean, product = np.empty((2, *inner.shape), np.float32)
    for _ in range(SWEEPS):
        np.multiply(weights[0], neighbours[0], out=mean)
        for weight, neighbour in zip(weights[1:], neighbours[1:], strict=True):
            mean += np.multiply(weight, neighbour, out=product)
        residual = rgb - np.multiply(v, mean, out=product).sum(axis=0)
        mean += np.multiply(gain, residual, out=product)
        np.clip(mean, 0, 1, out=inner)
        solved.extend_border()
    return solved.pixels
