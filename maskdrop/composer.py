"""Backgrounds from a text without a service that generates images: a small vocabulary, and no guesses.

A text is understood only if every one of its words is in the tables of this module. Any other text is refused with the
list of what can be drawn.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from maskdrop.background import DOWN, STOPS_MAX, Colour, Gradient, Studio, colour, gradient_of
from maskdrop.colours import NAMES
from maskdrop.errors import TextNotSupported
from maskdrop.studio import ALIASES, BACKDROPS

Drawn = Colour | Gradient | Studio
"""The backgrounds that can be drawn without an image."""

FILLERS = frozenset(
    {"a", "an", "the", "on", "in", "plain", "simple", "clean", "solid", "uniform", "seamless", "paper"}
    | {"background", "backdrop", "colour", "color"}
)
"""Words without an effect: all of them describe a background of one colour or paper."""

CONNECTORS = frozenset(("from", "to", "and", "into", "between"))
"""Words between the colours of a gradient."""

DIRECTIONS: dict[str, float | None] = {"vertical": DOWN, "horizontal": 90.0, "diagonal": 135.0, "radial": None}
"""Word -> angle of a gradient in degrees; None: radial."""

NAME_WORDS_MAX = 4
"""Words of the longest colour name of CSS, such as light golden rod yellow."""

GENERATED = (
    'a colour of CSS ("white background"), a gradient of them ("blue gradient", "radial white to grey gradient"), '
    f'or a studio backdrop ("white studio"; {", ".join(BACKDROPS)})'
)
"""What the composer draws, as the end of the sentence "This stage draws …"."""


def backdrop_of(text: str) -> Drawn:
    """Returns the background that a text such as "a plain light grey studio backdrop" describes.

    Capitals, hyphens and punctuation have no effect. A gradient of one colour begins with a tint half way to white.
    Raises TextNotSupported for a text with an unknown word, or without exactly one background.
    """
    words = [word for word in re.sub(r"[-,.;:!]", " ", text.lower()).split() if word not in FILLERS]
    kinds = {word for word in words if word in ("studio", "gradient")}
    rest = [word for word in words if word not in kinds]
    if kinds == {"studio"}:
        names = _names(rest, {*BACKDROPS, *ALIASES}, text)
        if len(names) == 1:
            return Studio(ALIASES.get(names[0], names[0]))
    elif kinds == {"gradient"}:
        angles = [DIRECTIONS[word] for word in rest if word in DIRECTIONS]
        names = _names([word for word in rest if word not in CONNECTORS and word not in DIRECTIONS], NAMES, text)
        colours = [colour(name) for name in names]
        if 1 <= len(colours) <= STOPS_MAX and len(angles) <= 1:
            stops = [_tint(colours[0]), *colours] if len(colours) == 1 else colours
            return gradient_of(stops, *angles)
    elif not kinds:
        names = _names(rest, NAMES, text)
        if len(names) == 1:
            return colour(names[0])
    raise _not_supported(text, "it does not describe exactly one background")


def _names(words: list[str], table: Collection[str], text: str) -> list[str]:
    """The names in a text, longest first: "light grey" is lightgrey. Raises TextNotSupported for an unknown word."""
    names = []
    while words:
        for count in range(min(len(words), NAME_WORDS_MAX), 0, -1):
            if (name := "".join(words[:count])) in table:
                break
        else:
            raise _not_supported(text, f"the word {words[0]!r:.40} is unknown here")
        names.append(name)
        words = words[count:]
    return names


def _tint(full: Colour) -> Colour:
    """The colour half way to white."""
    return Colour(*((channel + 255) // 2 for channel in (full.red, full.green, full.blue)))


def _not_supported(text: str, reason: str) -> TextNotSupported:
    return TextNotSupported(f"The background {text!r:.80} cannot be drawn: {reason}. This stage draws {GENERATED}.")
