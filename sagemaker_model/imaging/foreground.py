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
from numpy.typing import NDArray

from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.refine import mask_boxes, resized

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
    fore, back = (
        cv2.resize(colours, (width, height), interpolation=cv2.INTER_LINEAR)
        for colours in _solve(resized(image, size), resized(matte, size))
    )
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
        colours = _sweep(cv2.resize(image, size, interpolation=cv2.INTER_AREA), colours)
    fore, back = (cv2.convertScaleAbs(cv2.merge(list(planes)), alpha=255) for planes in (colours[:3], colours[3:]))
    return fore.reshape(rgb.shape), back.reshape(rgb.shape)


def _means(image: Floats) -> Floats:
    """Mean colours of an image HxWx4 weighted by alpha (F) and by 1 - alpha (B): 6x1x1."""
    pixels = image.reshape(-1, 4)
    weights = np.stack((pixels[:, 3], 1 - pixels[:, 3]))
    return ((weights @ pixels)[:, :3] / np.maximum(weights.sum(axis=1, keepdims=True), 1e-6)).reshape(6, 1, 1)


def _sweep(picture: Floats, colours: Floats) -> Floats:
    """Runs the Jacobi sweeps of one level: every pixel solves its own 2x2 system for F and B from its four neighbours.

    image: HxWx4. colours: F and B of the coarser level, 6xhxw of any size. All in 0..1. Returns 6xHxW. With
    v = (a, 1 - a) and t the sum of the neighbours' weights, the system is (t + v v^T)(F, B) = t M + v I, where M is the
    neighbours' weighted mean. By the Sherman-Morrison formula (F, B) = M + v (I - v^T M) / (t + v^T v).

    Each plane has a border of one pixel and is read as one long line, in which a neighbour is a shift. NumPy is fast on
    long runs (a quarter less time at 249 x 249). The values computed for the border are overwritten."""
    size = picture.shape[1::-1]
    rimmed = np.stack([_rimmed(cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST)) for plane in colours])
    stride = rimmed.shape[-1]
    inside = slice(stride, -stride)
    lines = rimmed.reshape(2, 3, -1)
    known = np.stack(cv2.split(_rimmed(picture))).reshape(4, -1)
    image, alpha = known[:3, inside], known[3, inside]
    weights = [REGULARISATION + np.abs(near - alpha) for near in _neighbours(known[3], stride)]
    total = np.sum(weights, axis=0)
    weights = [weight / total for weight in weights]
    share = np.stack((alpha, 1 - alpha))[:, None]
    gain = share / (total + (share * share).sum(axis=0))
    first, *others = zip(weights, _neighbours(lines, stride), strict=True)
    mean, product = np.empty((2, *lines[..., inside].shape), np.float32)
    for _ in range(SWEEPS):
        np.multiply(*first, out=mean)
        for weight, near in others:
            mean += np.multiply(weight, near, out=product)
        missed = image - np.multiply(share, mean, out=product).sum(axis=0)
        mean += np.multiply(gain, missed, out=product)
        np.clip(mean, 0, 1, out=lines[..., inside])
        _extend(rimmed)
    return rimmed[:, 1:-1, 1:-1]


def _rimmed(values: Floats) -> Floats:
    """Adds a border of one pixel, a copy of the outermost pixels, to HxW or HxWxC."""
    return cv2.copyMakeBorder(values, 1, 1, 1, 1, cv2.BORDER_REPLICATE)


def _extend(rimmed: Floats) -> None:
    """Copies the outermost pixels into the border again."""
    rimmed[..., 0, :], rimmed[..., -1, :] = rimmed[..., 1, :], rimmed[..., -2, :]
    rimmed[..., 0], rimmed[..., -1] = rimmed[..., 1], rimmed[..., -2]


def _neighbours(lines: Floats, stride: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Views of the neighbours above, below, left and right of all rows but the first and the last."""
    last = lines.shape[-1] - stride
    return (
        lines[..., : last - stride],
        lines[..., 2 * stride :],
        lines[..., stride - 1 : last - 1],
        lines[..., stride + 1 : last + 1],
    )
