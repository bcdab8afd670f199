"""The outline of a subject, as that of a sticker: a band of one colour around its alpha.

Its canonical text, `str()`, is read by the parser `outline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskdrop.background import OPAQUE_PATTERN, Colour, opaque
from maskdrop.grammar import DECIMALS, several, text_of
from maskdrop.lengths import Length, Unit, length

WIDTH_MAX: dict[Unit, float] = {"px": 100, "%": 20}

WHITE = Colour(255, 255, 255)


@dataclass(frozen=True, slots=True)
class Outline:
    """A band around the subject.

    width: pixels, or percent of the subject's longer side. Pixels are those of a canvas whose size is given in pixels,
        else those of the upright source.
    """

    width: Length
    colour: Colour = WHITE

    def __str__(self) -> str:
        return str(self.width) if self.colour == WHITE else f"{self.width} {self.colour}"


def outline(value: Any) -> Outline | None:
    """Parses an outline; returns None for "none" and for a width of 0. Raises ValueError."""
    words = several(text_of(value).lower().split(), 1, 2)
    if words == ["none"]:
        return None
    width = length(words[0], WIDTH_MAX)
    colour = opaque(words[1]) if len(words) == 2 else WHITE
    return Outline(width, colour) if width.value else None


OUTLINE_GRAMMAR = (
    f'"none", or a width such as 8px (at most {WIDTH_MAX["px"]:g}px) or 2% (at most {WIDTH_MAX["%"]:g}%, of the '
    "longer side of the subject), with an optional opaque colour after it"
)

_TO_20 = rf"(?:20(?:\.0{{1,3}})?|1?[0-9]{DECIMALS})"
_TO_100_PX = rf"(?:100(?:\.0{{1,3}})?|[1-9]?[0-9]{DECIMALS})"

OUTLINE_PATTERN = rf"none|(?:{_TO_100_PX}px|{_TO_20}%|0)(?: {OPAQUE_PATTERN})?"
