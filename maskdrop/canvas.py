"""The canvas of a result: a size in pixels, an aspect ratio, or the name of a marketplace.

A marketplace stands for a canvas with its padding and background. `Output.of` replaces the name, so that a job with the
name has the same ID as one with the values.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from maskdrop.background import Background, Colour
from maskdrop.grammar import text_of
from maskdrop.lengths import Length, Margins, Unit

SIDE_MAX = 10_000
"""Largest side of a canvas in pixels: the largest that Amazon accepts. The limit on pixels applies too."""

PADDING_MAX: dict[Unit, float] = {"px": 2000, "%": 45}
"""Largest padding of one side. At 45 % on both sides the subject fills a tenth of the canvas, as with the smallest
`scale`."""


@dataclass(frozen=True, slots=True)
class Canvas:
    """A canvas of `width` x `height` pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True)
class AspectRatio:
    """The smallest canvas of the ratio `width`:`height`, in lowest terms, that contains the result without scaling."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}:{self.height}"


@dataclass(frozen=True, slots=True)
class Marketplace:
    """The form of a product photo in a marketplace.

    padding, background: applied where the options have none of their own; None: no rule.
    """

    canvas: Canvas
    padding: Margins | None = None
    background: Background | None = None

    def to_json(self) -> dict[str, str]:
        """The output fields that the name stands for."""
        rules = {"canvas": self.canvas, "padding": self.padding, "background": self.background}
        return {name: str(value) for name, value in rules.items() if value is not None}


def _square(side: int, padding: float, background: Background | None) -> Marketplace:
    return Marketplace(Canvas(side, side), Margins(*[Length(padding, "%")] * 4), background)


_WHITE = Colour(255, 255, 255)

MARKETPLACES: dict[str, Marketplace] = {
    "amazon": _square(2000, 7, _WHITE),
    "ebay": _square(1600, 7, _WHITE),
    "etsy": _square(2000, 10, None),
    "google": _square(1500, 8, _WHITE),
    "shopify": _square(2048, 10, None),
    "walmart": _square(2200, 7, _WHITE),
    "instagram": Marketplace(Canvas(1080, 1350), Margins(*[Length(10, "%")] * 4)),
}
"""The rules of each are in docs/output.md, with their sources."""

_SIDES = re.compile(r"([0-9]{1,6})([x:])([0-9]{1,6})")


def canvas(value: Any) -> Canvas | AspectRatio | Marketplace:
    """Parses a canvas. Raises ValueError."""
    text = text_of(value).lower()
    if text in MARKETPLACES:
        return MARKETPLACES[text]
    found = _SIDES.fullmatch(text)
    if not found:
        raise ValueError
    width, height = int(found[1]), int(found[3])
    if not 1 <= min(width, height) <= max(width, height) <= SIDE_MAX:
        raise ValueError
    if found[2] == "x":
        return Canvas(width, height)
    divisor = math.gcd(width, height)
    return AspectRatio(width // divisor, height // divisor)


CANVAS_GRAMMAR = (
    f"a size in pixels such as 1000x1000, an aspect ratio of whole numbers such as 4:5 (at most {SIDE_MAX} each), "
    f"or one of {', '.join(MARKETPLACES)}"
)

_SIDE = r"(?:[1-9][0-9]{0,3}|10000)"

CANVAS_PATTERN = rf"{_SIDE}[x:]{_SIDE}|{'|'.join(MARKETPLACES)}"
