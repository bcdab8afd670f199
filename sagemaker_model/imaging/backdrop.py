"""Draws the generated backgrounds, gradients and studio backdrops, as layers of the size of the canvas.

Each range of rows is computed in floats and dithered, so a slow transition has no bands in 8 bits and a canvas of 25 MP
needs no array of its size.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

from maskdrop.background import Gradient
from maskdrop.drawing import colours_along, lit, place_along
from maskdrop.studio import Backdrop
from sagemaker_model.imaging.composite import Floats, Pixels, Rows, dithered

TABLE = 4096
"""Colours that are computed along a gradient. Between white and black two of them differ by 1/16 of a level."""


def gradient_layer(gradient: Gradient, size: tuple[int, int]) -> Rows:
    """Draws a gradient on a canvas of `size` (width, height). Opaque."""
    across, down = map(_floats, place_along(gradient, *size))
    table = [_floats(plane) for plane in zip(*colours_along(gradient, TABLE), strict=True)]

    def draw(rows: slice) -> tuple[Pixels, Pixels]:
        along = down[rows, None] + across
        if gradient.angle is None:
            np.sqrt(along, out=along)
        along *= TABLE - 1
        index = np.clip(np.rint(along, out=along), 0, TABLE - 1, out=along).astype(np.int32)
        return _merged([plane.take(index) for plane in table], rows)

    return draw


def studio_layer(backdrop: Backdrop, size: tuple[int, int]) -> Rows:
    """Draws a studio backdrop on a canvas of `size` (width, height). Opaque."""
    light = lit(backdrop, *size)
    lamp_x, corner_x, lamp_y, corner_y = map(_floats, (light.lamp_x, light.corner_x, light.lamp_y, light.corner_y))
    paper = [_floats(plane) for plane in zip(*light.paper, strict=True)]

    def draw(rows: slice) -> tuple[Pixels, Pixels]:
        shining = lamp_y[rows, None] * lamp_x
        shining += corner_x
        shining += corner_y[rows, None]
        return _merged([np.minimum(plane[rows, None] * shining, 255) for plane in paper], rows)

    return draw


def _floats(values: Iterable[float]) -> Floats:
    return np.fromiter(values, np.float32)


def _merged(planes: list[Floats], rows: slice) -> tuple[Pixels, Pixels]:
    """Dithers and merges the planes of red, green and blue; alpha is 255."""
    colours = cv2.merge([dithered(plane, rows) for plane in planes])
    return np.asarray(colours, np.uint8), np.broadcast_to(np.uint8(255), colours.shape[:2])
