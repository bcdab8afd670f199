"""Images with alpha laid over others and brought to other sizes, so that no edge gets a halo.

All alpha is straight. Colours are mixed as they are stored, in sRGB's own curve and not in linear light: so do
browsers, Photoshop by default and every peer, and a cut-out looks the same whoever lays it on.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

STRIP = 64
"""Rows laid over at once: in floats a whole image would be 12 times as large, and these stay in the cache."""


def over(rgb: Pixels, alpha: Pixels, behind: Pixels, opacity: Pixels) -> tuple[Pixels, Pixels]:
    """An image laid over another (Porter and Duff, 1984): its colours HxWx3 uint8 and its alpha HxW uint8.

    rgb, behind: HxWx3 uint8. alpha, opacity: HxW uint8, of the first and of the second. Any may be a broadcast view.
    """
    colours, shown = np.empty_like(rgb, order="C"), np.empty_like(alpha, order="C")
    for top in range(0, alpha.shape[0], STRIP):
        rows = slice(top, top + STRIP)
        front = alpha[rows] / np.float32(255)
        back = (1 - front) * (opacity[rows] / np.float32(255))
        # OpenCV's blend divides by the sum of the weights, as straight alpha asks for.
        cv2.blendLinear(
            np.ascontiguousarray(rgb[rows]), np.ascontiguousarray(behind[rows]), front, back, dst=colours[rows]
        )
        np.rint((front + back) * 255, out=shown[rows], casting="unsafe")
    return colours, shown


def resized(rgb: Pixels, alpha: Pixels, size: tuple[int, int], *, blur: float = 0.0) -> tuple[Pixels, Pixels]:
    """Colours HxWx3 and alpha HxW, both uint8, at `size` (width, height). A pixel's colour counts as much as it shows;
    where none does, colours are 0. blur: standard deviation of a Gaussian, in pixels of `size`."""
    weights = _scaled(alpha, size, blur)
    levels = _levels(weights.copy())
    np.maximum(weights, LEAST, out=weights)
    weights /= 255
    colours = np.empty((*levels.shape, 3), np.uint8)
    for channel in range(3):  # one by one, and in 16 bits at the size it has: 48 MP take 16 bytes a pixel at the peak
        plane = _scaled(alpha, size, blur, times=rgb[..., channel])
        straight = _levels(np.divide(plane, weights, out=plane))
        colours[..., channel] = cv2.copyTo(straight, levels).reshape(levels.shape)
    return colours, levels


def resized_matte(alpha: Pixels, size: tuple[int, int]) -> Pixels:
    """What `resized` makes of alpha."""
    return _levels(_scaled(alpha, size))


LEAST = 0.5
"""Of 255: what shows less is rounded to nothing."""


def _scaled(alpha: Pixels, size: tuple[int, int], blur: float = 0.0, times: Pixels | int = 255) -> Floats:
    """alpha `times` another plane at `size`, over 255: means where it shrinks, cubic where it grows."""
    plane = np.multiply(alpha, times, dtype=np.uint16)
    if size[0] * size[1] < plane.size:
        plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
    scaled = cv2.multiply(plane, 1 / 255, dtype=cv2.CV_32F).reshape(plane.shape)
    if size != plane.shape[::-1]:
        scaled = cv2.resize(scaled, size, interpolation=cv2.INTER_CUBIC)  # 16 bits would cut off what it overshoots
    if blur:
        scaled = cv2.GaussianBlur(scaled, (0, 0), blur, borderType=cv2.BORDER_REPLICATE)
    return scaled.reshape(size[::-1])


def _levels(plane: Floats) -> Pixels:
    """Rounds, in the plane itself."""
    np.rint(plane, out=plane)
    return np.clip(plane, 0, 255, out=plane).astype(np.uint8)
