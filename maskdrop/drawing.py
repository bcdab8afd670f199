"""The shapes of gradients and studio backdrops, as functions of the columns and rows of a canvas.

`sagemaker_model/imaging/backdrop.py` draws them with NumPy at the size of a result, `maskdrop/composer.py` with the
standard library at the size of an editor's image. Coordinates are those of the pixels' centres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from maskdrop.background import Colour, Gradient, colour
from maskdrop.studio import Backdrop

LAMP = ((0.5, 0.3), (0.42, 0.28))
"""Centre and standard deviation of the lamp's light on the wall, across and down, as shares of the canvas."""

CURVE_SHADE = 0.025
"""Darkening where seamless paper bends from the wall to the floor, as a share of the colour."""

BAYER_LEVELS = 3
"""The pattern of the dithering is 2**3 = 8 pixels square and has 64 thresholds."""

Channels = tuple[float, float, float]


def place_along(gradient: Gradient, width: int, height: int) -> tuple[list[float], list[float]]:
    """Returns one number for each column and one for each row. A pixel's place along the gradient, 0 to 1, is their
    sum, or the square root of their sum for a radial gradient."""
    x, y = ([(2 * index + 1) / length - 1 for index in range(length)] for length in (width, height))  # -1 to 1
    if gradient.angle is None:
        return [value * value / 2 for value in x], [value * value / 2 for value in y]
    across, down = width * math.sin(math.radians(gradient.angle)), -height * math.cos(math.radians(gradient.angle))
    length = 2 * (abs(across) + abs(down))
    return [0.5 + value * across / length for value in x], [value * down / length for value in y]


def colours_along(gradient: Gradient, count: int) -> list[Channels]:
    """Returns the colours at `count` places from the start to the end of a gradient."""
    stops = [gradient.stops[0], *gradient.stops, gradient.stops[-1]]
    places = [-1.0, *(stop.at / 100 for stop in gradient.stops), 2.0]
    colours, after = [], 1
    for index in range(count):
        place = index / (count - 1)
        while places[after] <= place:
            after += 1
        share = (place - places[after - 1]) / (places[after] - places[after - 1])
        colours.append(_mixed(stops[after - 1].colour, stops[after].colour, share))
    return colours


@dataclass(frozen=True, slots=True)
class Light:
    """The light and paper of a studio backdrop. The light of a pixel is lamp_x * lamp_y + corner_x + corner_y; its
    colour is the paper's colour in its row times the light, at most 255."""

    lamp_x: list[float]
    corner_x: list[float]
    lamp_y: list[float]
    corner_y: list[float]
    paper: list[Channels]


def lit(backdrop: Backdrop, width: int, height: int) -> Light:
    """Returns the light and paper of a backdrop."""
    x, y = ([(index + 0.5) / length for index in range(length)] for length in (width, height))
    wall, floor = colour(backdrop.wall), colour(backdrop.floor)
    steps = [min(1.0, max(0.0, (value - backdrop.horizon) / backdrop.curve + 0.5)) for value in y]
    shades = [CURVE_SHADE * _bell(value, backdrop.horizon, backdrop.curve / 3) for value in y]
    return Light(
        lamp_x=[_bell(value, *LAMP[0]) for value in x],
        corner_x=[-backdrop.vignette / 2 * (2 * value - 1) ** 2 for value in x],
        lamp_y=[backdrop.glow * _bell(value, *LAMP[1]) for value in y],
        corner_y=[
            1 - backdrop.vignette / 2 * (2 * value - 1) ** 2 - shade for value, shade in zip(y, shades, strict=True)
        ],
        paper=[_mixed(wall, floor, step * step * (3 - 2 * step)) for step in steps],
    )


def bayer(levels: int = BAYER_LEVELS) -> list[list[float]]:
    """Returns thresholds between 0 and 1 of ordered dithering (Bayer, 1973), 2**levels square."""
    order = [[0]]
    for _ in range(levels):
        order = [[4 * value + first for first in (0, 2) for value in line] for line in order] + [
            [4 * value + first for first in (3, 1) for value in line] for line in order
        ]
    return [[(value + 0.5) / len(order) ** 2 for value in line] for line in order]


def _mixed(first: Colour, second: Colour, share: float) -> Channels:
    return (
        first.red + (second.red - first.red) * share,
        first.green + (second.green - first.green) * share,
        first.blue + (second.blue - first.blue) * share,
    )


def _bell(value: float, centre: float, deviation: float) -> float:
    return math.exp(-0.5 * ((value - centre) / deviation) ** 2)
