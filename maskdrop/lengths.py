"""Lengths along the sides of an image or a canvas, in pixels or in percent, and margins on four sides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from maskdrop.grammar import NUMBER, several, text_of

Unit = Literal["px", "%"]


@dataclass(frozen=True, slots=True)
class Length:
    """A length along one side: pixels, or percent of that side. At most three decimals."""

    value: float
    unit: Unit = "px"

    def of(self, side: float) -> float:
        """The length in pixels, for a side of `side` pixels."""
        return self.value if self.unit == "px" else side * self.value / 100

    def __str__(self) -> str:
        return f"{self.value:.10g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Margins:
    """Lengths on the four sides of a rectangle."""

    top: Length = Length(0)
    right: Length = Length(0)
    bottom: Length = Length(0)
    left: Length = Length(0)

    def __str__(self) -> str:
        sides = self.top, self.right, self.bottom, self.left
        if len(set(sides)) == 1:
            return str(self.top)
        if (self.top, self.right) == (self.bottom, self.left):
            return f"{self.top} {self.right}"
        return " ".join(map(str, sides))


_LENGTH = re.compile(rf"(?:{NUMBER}(px|%)|0)")


def length(text: str, maximum: dict[Unit, float]) -> Length:
    """Parses a length, at most the maximum of its unit. Raises ValueError."""
    found = _LENGTH.fullmatch(text)
    if not found:
        raise ValueError
    parsed = Length(float(found[1]), found[2]) if found[1] else Length(0.0)  # type: ignore[arg-type]
    if parsed.unit in maximum and parsed.value > maximum[parsed.unit]:
        raise ValueError
    return parsed


def margins(value: Any, maximum: dict[Unit, float]) -> Margins:
    """Parses one length for all sides, two (top and bottom, left and right) or four (top, right, bottom, left). Raises
    ValueError."""
    sides = several([length(part, maximum) for part in text_of(value).split()], 1, 2, 4)
    return Margins(*(sides * (4 // len(sides))))


def margins_pattern(one: str) -> str:
    """The pattern of margins from that of one length."""
    return rf"{one}(?: {one}(?: {one} {one})?)?"
