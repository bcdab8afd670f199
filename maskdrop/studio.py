"""Studio backdrops: seamless paper that curves from a wall to the floor, lit by a lamp, as a recipe for each name.

A backdrop is drawn at any canvas size by `sagemaker_model/imaging/backdrop.py`. The colours are those of common
seamless papers under a soft light, chosen by eye; the floor is lighter than the wall because it faces the lamp.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backdrop:
    """The recipe of a backdrop.

    wall, floor: colours in six hexadecimal digits.
    glow: light of the lamp on the wall behind the subject, as a share of the wall's colour.
    vignette: darkening of the corners, as a share of the colour.
    horizon: height at which the paper is half wall, half floor, as a share of the canvas from its top.
    curve: height of the transition from wall to floor, as a share of the canvas.
    """

    wall: str
    floor: str
    glow: float = 0.06
    vignette: float = 0.12
    horizon: float = 0.66
    curve: float = 0.24


BACKDROPS: dict[str, Backdrop] = {
    "white": Backdrop("f1f1f1", "fcfcfc", glow=0.04, vignette=0.03),
    "lightgrey": Backdrop("d6d7d9", "e6e7e8", vignette=0.08),
    "grey": Backdrop("9a9c9f", "b2b4b6", glow=0.14, vignette=0.16),
    "charcoal": Backdrop("3f4144", "54565a", glow=0.35, vignette=0.3),
    "black": Backdrop("131314", "1f1f21", glow=0.7, vignette=0.4),
    "cream": Backdrop("efe6d4", "f8f2e5", vignette=0.07),
    "beige": Backdrop("d2c0a6", "e1d2bb", vignette=0.1),
    "blush": Backdrop("edcfcb", "f6dfdb", vignette=0.08),
    "blue": Backdrop("a9c1d6", "c0d4e4", glow=0.08, vignette=0.12),
    "green": Backdrop("a7b8a2", "bfcdb9", glow=0.08, vignette=0.12),
}
"""Name -> recipe, from light to dark and then by colour."""

ALIASES: dict[str, str] = {
    "gray": "grey",
    "lightgray": "lightgrey",
    "darkgrey": "charcoal",
    "darkgray": "charcoal",
    "pink": "blush",
}
"""Other names of backdrops."""
