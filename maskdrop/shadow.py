"""The shadow of a subject, made from its alpha: a drop shadow on a wall, or a contact shadow on the floor.

Each kind has one canonical text, `str()`, that the parser `shadow` reads. Lengths are in percent of the longer side of
the subject, so that one preset fits images of every size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskdrop.background import OPAQUE_PATTERN, Colour, opaque
from maskdrop.grammar import DECIMALS, TO_100, percent, several, text_of

OFFSET_MAX, BLUR_MAX = 50.0, 20.0
"""Maximum offset and standard deviation of a drop shadow, in percent of the subject's longer side."""

BLACK = Colour(0, 0, 0)


@dataclass(frozen=True, slots=True)
class DropShadow:
    """The subject's outline, moved and blurred, as on a wall behind the subject.

    x, y: offset to the right and down. blur: standard deviation of a Gaussian. All in percent of the longer side of the
        subject.
    opacity: of the shadow before it is blurred, in percent.
    """

    x: float = 0.0
    y: float = 2.0
    blur: float = 2.5
    opacity: float = 35.0
    colour: Colour = BLACK

    def __str__(self) -> str:
        lengths = (self.x, self.y, self.blur)
        text = "drop" if lengths == _DROP[:3] else f"drop {' '.join(f'{length:.10g}%' for length in lengths)}"
        return text + _rest(self, _DROP[3])


@dataclass(frozen=True, slots=True)
class ContactShadow:
    """A soft shadow on the floor along the lowest parts of the subject. opacity: where it is darkest, in percent."""

    opacity: float = 60.0
    colour: Colour = BLACK

    def __str__(self) -> str:
        return "contact" + _rest(self, ContactShadow().opacity)


Shadow = DropShadow | ContactShadow

_DROP = (DropShadow().x, DropShadow().y, DropShadow().blur, DropShadow().opacity)


def shadow(value: Any) -> Shadow | None:
    """Parses a shadow; "none" is None. Raises ValueError."""
    kind, *words = text_of(value).lower().split() or [""]
    if kind == "none":
        several(words, 0)
        return None
    colour = opaque(words.pop()) if words and not words[-1].endswith("%") else BLACK
    if kind == "contact":
        several(words, 0, 1)
        return ContactShadow(percent(words[0]) if words else ContactShadow().opacity, colour)
    if kind != "drop":
        raise ValueError
    several(words, 0, 1, 3, 4)
    x, y, blur, opacity = _DROP
    if len(words) >= 3:
        x, y = (percent(word, -OFFSET_MAX, OFFSET_MAX) for word in words[:2])
        blur = percent(words[2], 0, BLUR_MAX)
    if len(words) in (1, 4):
        opacity = percent(words[-1])
    return DropShadow(x, y, blur, opacity, colour)


def _rest(shadow: Shadow, opacity: float) -> str:
    """The text of opacity and colour, without default values."""
    text = "" if shadow.opacity == opacity else f" {shadow.opacity:.10g}%"
    return text if shadow.colour == BLACK else f"{text} {shadow.colour}"


SHADOW_GRAMMAR = (
    f'"none", "drop", "drop X Y BLUR" (X and Y from -{OFFSET_MAX:g}% to {OFFSET_MAX:g}%, BLUR at most {BLUR_MAX:g}%) '
    'or "contact", each with an optional opacity such as 40% and an optional opaque colour after it'
)

_TO_50 = rf"(?:50(?:\.0{{1,3}})?|[1-4]?[0-9]{DECIMALS})"
_TO_20 = rf"(?:20(?:\.0{{1,3}})?|1?[0-9]{DECIMALS})"

SHADOW_PATTERN = rf"none|(?:drop(?: -?{_TO_50}% -?{_TO_50}% {_TO_20}%)?|contact)(?: {TO_100}%)?(?: {OPAQUE_PATTERN})?"
