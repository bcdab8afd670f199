"""Estimates the subject's own colours where it is half transparent, to remove spill of the background's colour.

The model is I = aF + (1 - a)B. F (foreground) and B (background) are solved together on an image pyramid, from coarse
to fine: Germer et al., "Fast Multi-Level Foreground Estimation", ICPR 2020. Here all pixels are updated at once (Jacobi
sweeps) rather than one by one.

Mean error of the composite on black in the half-transparent band: 5.4 of 255, against 11.0 with the image's colours
unchanged. Measured on twelve people with known colours and alpha on other backgrounds, at 1 MP.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from cv2.typing import MatLike

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.refine import STRIP_ROWS
from sagemaker_model.imaging.resize import Floats, resized, sampled, shrunk

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
    band = cv2.inRange(alpha, 1, 254)
    x, y, width, height = cv2.boundingRect(band)
    if width == 0:
        return rgb
    scale = min(1.0, math.sqrt(SOLVE_PIXELS_MAX / (width * height)))
    crop = _crop_range(y, height, scale), _crop_range(x, width, scale)
    image, matte = rgb[crop], alpha[crop]
    height, width = matte.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    solved = _solve(shrunk(image, size), shrunk(matte, size))
    result = rgb.copy()
    for top in range(y, y + height, STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        at = np.flatnonzero(band[rows] != 0)  # ten times faster on bool
        if at.size:
            row, column = np.divmod(at, band.shape[1])
            fore, back = sampled(solved, (height, width), row + (top - crop[0].start), column - crop[1].start)
            own = _restore_detail(rgb[rows].reshape(-1, 3).take(at, 0), alpha[rows].reshape(-1).take(at), fore, back)
            result[rows].reshape(-1, 3)[at] = own
    return result


def _crop_range(start: int, length: int, scale: float) -> slice:
    """Extends a range of rows or columns by MARGIN at both ends and rounds out to multiples of CROP_MULTIPLE.

    The stop may lie beyond the end of the image.
    """
    margin = math.ceil(MARGIN / scale)
    first, last = max(0, start - margin), start + length + margin
    return slice(first // CROP_MULTIPLE * CROP_MULTIPLE, -(-last // CROP_MULTIPLE) * CROP_MULTIPLE)


def _restore_detail(image: Pixels, alpha: Pixels, fore: Floats, back: Floats) -> Pixels:
    """Adds the image's fine detail, the residual I - (aF + (1 - a)B), to F in the share of a (Forte, 2021).

    image, fore, back: Nx3, in 0..255. alpha: N. Returns F, Nx3 uint8.
    """
    a = np.repeat(alpha, 3).reshape(-1, 3) * np.float32(1 / 255)
    residual = fore - back
    residual *= a
    residual += back
    np.subtract(image, residual, out=residual)
    residual *= a
    return np.asarray(cv2.add(fore, residual, dtype=cv2.CV_8U), np.uint8)


def _solve(rgb: Pixels, alpha: Pixels) -> tuple[MatLike, MatLike]:
    """Solves for F and B, each HxWx3 float32 in 0..255, of an image HxWx3 uint8 and its alpha HxW uint8.

    Inside, all values are in 0..1: image and alpha as one array, HxWx4; F and B as planes, 6xHxW.
    """
    height, width = alpha.shape
    levels = max(1, math.ceil(math.log2(max(height, width))))
    sizes = [(max(1, round(width ** (i / levels))), max(1, round(height ** (i / levels)))) for i in range(levels + 1)]
    images = [cv2.merge((rgb, alpha)) / np.float32(255)]
    for size in sizes[-2::-1]:  # each level is shrunk from the next finer one
        images.insert(0, resized(images[0], size, halve=False))
    colours = _means(images[-1])
    for image in images:
        colours = _sweep(image, colours)
    colours *= 255
    return cv2.merge(list(colours[:3])), cv2.merge(list(colours[3:]))


def _means(image: Floats) -> Floats:
    """Mean colours of an image HxWx4 weighted by alpha (F) and by 1 - alpha (B): 6x1x1."""
    pixels = image.reshape(-1, 4)
    weights = np.stack((pixels[:, 3], 1 - pixels[:, 3]))
    means: Floats = (weights @ pixels)[:, :3] / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)
    return means.reshape(6, 1, 1)


def _sweep(image: Floats, colours: Floats) -> Floats:
    """Runs the Jacobi sweeps of one level: every pixel solves its own 2x2 system for F and B from its four neighbours.

    image: HxWx4. colours: F and B of the coarser level, 6xhxw of any size. All in 0..1. Returns 6xHxW. Only pixels of
    the band and those beside it are solved: the others keep the coarser level's colours, which no result shows.

    With v = (a, 1 - a) and t the sum of the neighbours' weights, the system is (t + v v^T)(F, B) = t M + v I; M is the
    neighbours' weighted mean. By the Sherman-Morrison formula (F, B) = M + v (I - v^T M) / (t + v^T v).
    """
    height, width = image.shape[:2]
    colours = np.stack([cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST) for plane in colours])
    soft = cv2.inRange(image[..., 3], 0.5 / 255, 1 - 0.5 / 255)
    near = cv2.dilate(soft, np.ones((3, 3), np.uint8)).reshape(-1) != 0
    at = np.flatnonzero(near)
    if not at.size:
        return colours
    row, column = np.divmod(at, width)
    neighbours = np.stack(
        (at - width * (row > 0), at + width * (row < height - 1), at - (column > 0), at + (column < width - 1))
    )
    planes, pixels = colours.reshape(6, -1), image.reshape(-1, 4)
    every_alpha = np.ascontiguousarray(pixels[:, 3])
    alpha = every_alpha[at]
    weights = np.abs(every_alpha[neighbours] - alpha)
    weights += REGULARISATION
    total = weights.sum(axis=0)
    weights /= total
    v = np.stack((alpha, 1 - alpha))[:, None]
    gain = v / (total + (v * v).sum(axis=0))
    rgb = np.ascontiguousarray(pixels[at, :3].T)
    around = np.zeros_like(near)
    around[neighbours] = True
    order = np.concatenate((at, np.flatnonzero(around > near)))  # the solved pixels, then their other neighbours
    number = np.empty(height * width, np.intp)
    number[order] = np.arange(len(order))
    neighbours, local = number[neighbours], planes.take(order, axis=1)
    solved = local[:, : len(at)]
    for _ in range(SWEEPS):
        parts = local.take(neighbours, axis=1)
        parts *= weights
        mean = parts.sum(axis=1)
        both = mean.reshape(2, 3, -1)  # a view: F and B
        residual = rgb - (v * both).sum(axis=0)
        both += gain * residual
        np.clip(mean, 0, 1, out=solved)
    planes[:, at] = solved
    return colours
