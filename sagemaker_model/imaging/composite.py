"""Alpha compositing and resizing of straight-alpha images without halos at the edges.

All alpha is straight. Colours are mixed in the sRGB curve that they are stored in, not in linear light: browsers,
Photoshop by default and all comparable tools do the same, so a cut-out looks the same in every viewer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from maskdrop.background import Colour
from maskdrop.drawing import bayer

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

STRIP_ROWS = 64
"""Rows composited at once. A whole image in floats would take 12 times its memory; a strip stays in the CPU cache."""


SOFT_MAX = 0.1
"""Share of a strip's pixels that are neither opaque nor transparent up to which they are blended one by one."""

Rows = Callable[[slice], tuple[Pixels, Pixels]]
"""A layer behind an image: returns colours HxWx3 and alpha HxW, both uint8, of a range of its rows. A drawn layer is
never in memory as a whole."""


def layer(rgb: Pixels, alpha: Pixels) -> Rows:
    """A layer of arrays: rgb HxWx3 and alpha HxW, both uint8. Either may be a broadcast view."""
    return lambda rows: (rgb[rows], alpha[rows])


def solid(colour: Colour, size: tuple[int, int]) -> tuple[Pixels, Pixels]:
    """Colours and alpha of one colour at `size` (width, height), as broadcast views: of one row, because a view of one
    pixel is copied 100 times more slowly."""
    width, height = size
    row = np.tile(np.array((colour.red, colour.green, colour.blue), np.uint8), (width, 1))
    return np.broadcast_to(row, (height, width, 3)), np.broadcast_to(np.uint8(colour.alpha), (height, width))


def over(rgb: Pixels, alpha: Pixels, *layers: Rows) -> tuple[Pixels, Pixels]:
    """Composites an image over layers (Porter and Duff, 1984); returns colours HxWx3 and alpha HxW, both uint8.

    rgb: HxWx3 uint8. alpha: HxW uint8. layers: from front to back, at least one.
    """
    colours, result_alpha = np.empty_like(rgb, order="C"), np.empty_like(alpha, order="C")
    for top in range(0, alpha.shape[0], STRIP_ROWS):
        rows = slice(top, min(top + STRIP_ROWS, alpha.shape[0]))
        strips = [(rgb[rows], alpha[rows]), *(draw(rows) for draw in layers)]
        behind = strips.pop()
        while len(strips) > 1:
            front = strips.pop()
            if not front[1].any():
                continue
            behind = _strip_over(front, behind, np.empty(front[0].shape, np.uint8), np.empty(front[1].shape, np.uint8))
        _strip_over(strips[0], behind, colours[rows], result_alpha[rows])
    return colours, result_alpha


def _strip_over(
    front: tuple[Pixels, Pixels], behind: tuple[Pixels, Pixels], colours: Pixels, alpha: Pixels
) -> tuple[Pixels, Pixels]:
    """Composites a strip over another into `colours` and `alpha`; returns both. Pixels whose front is opaque or
    transparent are copied."""
    np.copyto(colours, behind[0])
    np.copyto(alpha, behind[1])
    opaque = front[1] == 255
    if opaque.any():
        mask = opaque.view(np.uint8)
        cv2.copyTo(np.ascontiguousarray(front[0]), mask, colours)
        cv2.copyTo(front[1], mask, alpha)
    soft = np.flatnonzero(front[1] - np.uint8(1) < 254)
    if soft.size > SOFT_MAX * alpha.size:
        _blend(front, behind, colours, alpha)
    elif soft.size:
        blended = np.empty((soft.size, 1, 3), np.uint8), np.empty((soft.size, 1), np.uint8)
        _blend(_pixels(front, soft), _pixels(behind, soft), *blended)
        colours.reshape(-1, 3)[soft], alpha.reshape(-1)[soft] = blended[0][:, 0], blended[1][:, 0]
    return colours, alpha


def _pixels(strip: tuple[Pixels, Pixels], index: NDArray[np.intp]) -> tuple[Pixels, Pixels]:
    """Colours Nx1x3 and alpha Nx1 of the pixels of a strip at a flat index."""
    rows, columns = np.divmod(index, strip[1].shape[1])
    return strip[0][rows, columns][:, None], strip[1][rows, columns][:, None]


def _blend(front: tuple[Pixels, Pixels], behind: tuple[Pixels, Pixels], colours: Pixels, alpha: Pixels) -> None:
    """Composites pixels over others into `colours` and `alpha`."""
    weight = front[1] / np.float32(255)
    rest = (1 - weight) * (behind[1] / np.float32(255))
    # OpenCV's blend divides by the sum of the weights, which straight alpha requires.
    cv2.blendLinear(np.ascontiguousarray(front[0]), np.ascontiguousarray(behind[0]), weight, rest, dst=colours)
    np.rint((weight + rest) * 255, out=alpha, casting="unsafe")


def dithered(values: Floats, rows: slice) -> Pixels:
    """Rounds values HxW of 0..255 up or down by an ordered pattern, so that a slow transition has no visible bands.

    Whole numbers keep their value. rows: the rows of the canvas that the values fill.
    """
    tile = BAYER[np.arange(rows.start, rows.stop) % len(BAYER)]
    width = values.shape[1]
    threshold = np.tile(tile, (1, -(-width // len(BAYER))))[:, :width]
    return np.asarray(values + threshold, np.uint8)


BAYER = np.array(bayer(), np.float32)


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
