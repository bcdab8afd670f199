"""The subject's own colours where it is half transparent: a cut-out of a picture taken on green must not glow green.

A picture is I = aF + (1 - a)B. F and B are found together, from coarse to fine, as Germer et al. propose ("Fast
Multi-Level Foreground Estimation", ICPR 2020); with all pixels at once (Jacobi sweeps) rather than one by one. Mean
error of the composite on black in the band, twelve people of known colours and alpha before other backgrounds, 1 MP:
5.4 of 255, against 11.0 with the picture's colours as they are.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from sagemaker_model.pixels import Pixels

Floats = NDArray[np.float32]

SWEEPS = 6
REGULARISATION = 1e-5
"""How strongly neighbours agree where alpha is flat; beside it counts the difference of their alphas."""

SOLVED_MAX = 60_000
"""Pixels at which the colours are solved for. They vary slowly, and the picture's own detail is put back afterwards:
with 250,000 the error is 5.3 instead of 5.4, and it takes 4 to 5 times as long."""

MARGIN = 32
"""Pixels around the band, at the solved size, from which its colours come."""


def estimate_foreground(rgb: Pixels, alpha: Pixels) -> Pixels:
    """`rgb` with the subject's own colours wherever 0 < alpha < 255; elsewhere unchanged.

    rgb: HxWx3 uint8. alpha: HxW uint8. Returns a new HxWx3 uint8, or `rgb` itself where there is no such pixel.
    """
    band = cv2.inRange(alpha, 1, 254).reshape(alpha.shape)
    x, y, width, height = cv2.boundingRect(band)
    if width == 0:
        return rgb
    scale = min(1.0, math.sqrt(SOLVED_MAX / (width * height)))
    margin = math.ceil(MARGIN / scale)
    crop = (
        slice(max(0, y - margin), y + height + margin),
        slice(max(0, x - margin), x + width + margin),
    )
    image, matte = rgb[crop].copy(), np.ascontiguousarray(alpha[crop])
    # Places in the flat crop: three times faster than a mask of booleans where one pixel in twenty is in the band.
    at = np.flatnonzero(band[crop])

    height, width = matte.shape
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small_fore, small_back = _solve(_resized(image, size) / np.float32(255), _resized(matte, size) / np.float32(255))
    fore = _at_full_size(small_fore, (width, height)).reshape(-1, 3)[at].astype(np.float32)
    back = _at_full_size(small_back, (width, height)).reshape(-1, 3)[at].astype(np.float32)

    # What a F + (1 - a) B misses of the picture is its fine detail: it goes to F in the share of a (Forte, 2021).
    a = matte.reshape(-1)[at].astype(np.float32)[:, None] / 255
    fore += a * (image.reshape(-1, 3)[at] - (a * fore + (1 - a) * back))

    image.reshape(-1, 3)[at] = np.clip(np.rint(fore), 0, 255).astype(np.uint8)
    result = rgb.copy()
    result[crop] = image
    return result


def _resized(values: Pixels, size: tuple[int, int]) -> Floats:
    return cv2.resize(values, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _at_full_size(values: Floats, size: tuple[int, int]) -> Pixels:
    small = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)


def _solve(image: Floats, alpha: Floats) -> tuple[Floats, Floats]:
    """F and B, each HxWx3 in 0..1, of an image HxWx3 in 0..1 and its alpha HxW in 0..1."""
    height, width = alpha.shape
    levels = max(1, math.ceil(math.log2(max(height, width))))
    fore = _weighted_mean(image, alpha)
    back = _weighted_mean(image, 1 - alpha)
    for level in range(levels + 1):
        size = (
            max(1, round(width ** (level / levels))),
            max(1, round(height ** (level / levels))),
        )
        fine = size == (width, height)
        picture = image if fine else cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], 3)
        matte = alpha if fine else cv2.resize(alpha, size, interpolation=cv2.INTER_AREA).reshape(size[::-1])
        fore = cv2.resize(fore, size, interpolation=cv2.INTER_NEAREST).reshape(*size[::-1], 3)
        back = cv2.resize(back, size, interpolation=cv2.INTER_NEAREST).reshape(*size[::-1], 3)
        fore, back = _sweep(picture, matte, fore, back)
    return fore, back


def _weighted_mean(image: Floats, weight: Floats) -> Floats:
    total = max(float(weight.sum()), 1e-6)
    return (np.tensordot(weight, image, axes=2) / total).astype(np.float32).reshape(1, 1, 3)


def _sweep(image: Floats, alpha: Floats, fore: Floats, back: Floats) -> tuple[Floats, Floats]:
    """Jacobi sweeps: every pixel solves its own 2x2 system for F and B, given its four neighbours."""
    padded = np.pad(alpha, 1, mode="edge")
    weights = [REGULARISATION + np.abs(neighbour - alpha)[..., None] for neighbour in _neighbours(padded)]
    total = weights[0] + weights[1] + weights[2] + weights[3]
    a = alpha[..., None]
    f_f, b_b, f_b = a * a + total, (1 - a) ** 2 + total, a * (1 - a)
    scale = 1 / (f_f * b_b - f_b * f_b)
    for _ in range(SWEEPS):
        right_f, right_b = a * image, (1 - a) * image
        for weight, near_f, near_b in zip(
            weights,
            _neighbours(cv2.copyMakeBorder(fore, 1, 1, 1, 1, cv2.BORDER_REPLICATE)),
            _neighbours(cv2.copyMakeBorder(back, 1, 1, 1, 1, cv2.BORDER_REPLICATE)),
            strict=True,
        ):
            right_f += weight * near_f
            right_b += weight * near_b
        fore = np.clip((b_b * right_f - f_b * right_b) * scale, 0, 1)
        back = np.clip((f_f * right_b - f_b * right_f) * scale, 0, 1)
    return fore, back


def _neighbours(padded: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    return padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
