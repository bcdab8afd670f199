"""Alpha compositing and resizing of straight-alpha images without halos at the edges.

All alpha is straight. Colours are mixed in the sRGB curve that they are stored in, not in linear light: browsers,
Photoshop by default and all comparable tools do the same, so a cut-out looks the same in every viewer.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

STRIP_ROWS = 64
"""Rows composited at once. A whole image in floats would take 12 times its memory; a strip stays in the CPU cache."""


def over(rgb: Pixels, alpha: Pixels, background: Pixels, background_alpha: Pixels) -> tuple[Pixels, Pixels]:
    """Composites an image over a background (Porter and Duff, 1984); returns colours HxWx3 and alpha HxW, both uint8.

    rgb, background: HxWx3 uint8. alpha, background_alpha: HxW uint8. Any of them may be a broadcast view.
    """
    colours, result_alpha = np.empty_like(rgb, order="C"), np.empty_like(alpha, order="C")
    for top in range(0, alpha.shape[0], STRIP_ROWS):
        rows = slice(top, top + STRIP_ROWS)
        front = alpha[rows] / np.float32(255)
        back = (1 - front) * (background_alpha[rows] / np.float32(255))
        # OpenCV's blend divides by the sum of the weights, which straight alpha requires.
        cv2.blendLinear(
            np.ascontiguousarray(rgb[rows]), np.ascontiguousarray(background[rows]), front, back, dst=colours[rows]
        )
        np.rint((front + back) * 255, out=result_alpha[rows], casting="unsafe")
    return colours, result_alpha


def resized_cutout(rgb: Pixels, alpha: Pixels, size: tuple[int, int], *, blur: float = 0.0) -> tuple[Pixels, Pixels]:
    """Resizes a straight-alpha image; returns colours HxWx3 and alpha HxW, both uint8, at `size` (width, height).

    Each pixel's colour is weighted by its alpha; colours are 0 where the resized alpha is 0.
    blur: standard deviation of a Gaussian, in pixels of `size`.
    """
    weights = _scaled(alpha, size, blur)
    levels = _rounded(weights.copy())
    np.maximum(weights, ALPHA_MIN, out=weights)
    weights /= 255
    colours = np.empty((*levels.shape, 3), np.uint8)
    for channel in range(3):  # one channel at a time, in 16 bits at the source's size: 48 MP peak at 16 bytes a pixel
        plane = _scaled(alpha, size, blur, times=rgb[..., channel])
        straight = _rounded(np.divide(plane, weights, out=plane))
        colours[..., channel] = cv2.copyTo(straight, levels).reshape(levels.shape)
    return colours, levels


def resized_matte(alpha: Pixels, size: tuple[int, int]) -> Pixels:
    """Resizes alpha HxW uint8 to `size` (width, height), with the same result as the alpha of `resized_cutout`."""
    return _rounded(_scaled(alpha, size))


ALPHA_MIN = 0.5
"""Of 255: a lower alpha rounds to 0."""


def _scaled(alpha: Pixels, size: tuple[int, int], blur: float = 0.0, times: Pixels | int = 255) -> Floats:
    """alpha `times` another plane at `size`, divided by 255: area means to shrink, cubic interpolation to enlarge."""
    plane = np.multiply(alpha, times, dtype=np.uint16)
    if size[0] * size[1] < plane.size:
        plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    share: Any = 1 / 255  # OpenCV accepts a scalar, its types do not
    scaled: Any = cv2.multiply(plane, share, dtype=cv2.CV_32F).reshape(plane.shape)
    if size != plane.shape[::-1]:
        scaled = cv2.resize(scaled, size, interpolation=cv2.INTER_CUBIC)  # in floats: 16 bits would clip the overshoot
    if blur:
        scaled = cv2.GaussianBlur(scaled, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(scaled.reshape(size[::-1]), np.float32)


def _rounded(plane: Floats) -> Pixels:
    """Rounds and clips to 0..255 in place; returns uint8."""
    np.rint(plane, out=plane)
    return np.clip(plane, 0, 255, out=plane).astype(np.uint8)
