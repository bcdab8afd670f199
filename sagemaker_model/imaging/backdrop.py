"""Draws the generated backgrounds, gradients and studio backdrops, as layers of the size of the canvas.

Each range of rows is computed in floats and dithered, so a slow transition has no bands in 8 bits and a canvas of 25 MP
needs no array of its size.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from maskdrop.background import Colour, Gradient, colour
from maskdrop.studio import Backdrop
from sagemaker_model.imaging.composite import Floats, Pixels, Rows, dithered

TABLE = 4096
"""Colours that are computed along a gradient. Between white and black two of them differ by 1/16 of a level."""

SQRT2 = math.sqrt(2)

CURVE_SHADE = 0.025
"""Darkening where seamless paper bends from the wall to the floor, as a share of the colour."""


def gradient_layer(gradient: Gradient, size: tuple[int, int]) -> Rows:
    """Draws a gradient on a canvas of `size` (width, height). Opaque."""
    width, height = size
    table = _table(gradient)
    # coordinates of the pixels' centres from the centre of the canvas, in pixels
    x, y = _centres(width) - np.float32(width / 2), _centres(height) - np.float32(height / 2)
    if gradient.angle is None:
        across, down = np.square(x * np.float32(SQRT2 / width)), np.square(y * np.float32(SQRT2 / height))
    else:
        sine, cosine = math.sin(math.radians(gradient.angle)), math.cos(math.radians(gradient.angle))
        length = width * abs(sine) + height * abs(cosine)
        across, down = x * np.float32(sine / length) + np.float32(0.5), y * np.float32(-cosine / length)

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
    width, height = size
    x, y = _shares(width), _shares(height)
    step = np.clip((y - backdrop.horizon) / backdrop.curve + 0.5, 0, 1)
    floor = step * step * (3 - 2 * step)
    wall_colour, floor_colour = _levels(colour(backdrop.wall)), _levels(colour(backdrop.floor))
    paper = wall_colour[:, None] + (floor_colour - wall_colour)[:, None] * floor
    # the light is 1 + glow of the lamp - shade of the curve - vignette; each part is one function of x and one of y
    lamp_x, lamp_y = _bell(x, 0.5, 0.3), backdrop.glow * _bell(y, 0.42, 0.28)
    corner_x = -backdrop.vignette / 2 * (2 * x - 1) ** 2
    shade = CURVE_SHADE * _bell(y, backdrop.horizon, backdrop.curve / 3)
    corner_y = 1 - backdrop.vignette / 2 * (2 * y - 1) ** 2 - shade

    def draw(rows: slice) -> tuple[Pixels, Pixels]:
        light = lamp_y[rows, None] * lamp_x
        light += corner_x
        light += corner_y[rows, None]
        return _merged([np.minimum(plane[rows, None] * light, 255) for plane in paper], rows)

    return draw


def _table(gradient: Gradient) -> Floats:
    """Colours along a gradient, 3 x TABLE."""
    places = [stop.at / 100 for stop in gradient.stops]
    colours = np.array([_levels(stop.colour) for stop in gradient.stops])
    along = np.linspace(0, 1, TABLE)
    return np.array([np.interp(along, places, channel) for channel in colours.T], np.float32)


def _centres(length: int) -> Floats:
    """Coordinates of the pixels' centres on a line of `length` pixels."""
    return np.arange(length, dtype=np.float32) + np.float32(0.5)


def _shares(length: int) -> Floats:
    return np.asarray(_centres(length) / length, np.float32)


def _levels(colour: Colour) -> Floats:
    return np.array((colour.red, colour.green, colour.blue), np.float32)


def _bell(values: Floats, centre: float, deviation: float) -> Floats:
    return np.asarray(np.exp(-0.5 * ((values - centre) / deviation) ** 2), np.float32)


def _merged(planes: list[Floats], rows: slice) -> tuple[Pixels, Pixels]:
    """Dithers and merges the planes of red, green and blue; alpha is 255."""
    colours = cv2.merge([dithered(plane, rows) for plane in planes])
    return np.asarray(colours, np.uint8), np.broadcast_to(np.uint8(255), colours.shape[:2])
