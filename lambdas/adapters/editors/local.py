"""The editor that draws studio backdrops by the standard library, without a paid service."""

from __future__ import annotations

import re
from collections.abc import Iterator

from maskdrop.errors import TextNotSupported
from maskdrop.png import RGB, write_png
from maskdrop.services import EditedImage, EditRequest

BACKDROPS: dict[str, tuple[int, int]] = {
    "white": (0xF1F1F1, 0xFCFCFC),
    "grey": (0x9A9C9F, 0xB2B4B6),
    "black": (0x131314, 0x1F1F21),
    "beige": (0xD2C0A6, 0xE1D2BB),
    "blue": (0xA9C1D6, 0xC0D4E4),
    "green": (0xA7B8A2, 0xBFCDB9),
}
"""Colours of the wall and of the floor, by name."""

WORDS = frozenset(
    ("a", "an", "backdrop", "background", "in", "of", "paper", "plain", "seamless", "studio", "the", "wall")
)
"""Words of a text besides the name."""

HORIZON, CURVE = 0.62, 0.24
"""Place where the wall becomes the floor, and length of the transition, as shares of the height."""


class LocalEditor:
    """Draws the backdrop that a text names. It generates nothing else, and no subjects."""

    usd_per_image = 0.0

    def check(self, prompt: str) -> None:
        backdrop_of(prompt)

    def edit(self, request: EditRequest) -> EditedImage:
        wall, floor = backdrop_of(request.prompt)
        if request.change != "background":
            raise TextNotSupported(
                'This stage draws backgrounds only: "edit.change" must be background; got subject. Set the option '
                '"editor" of the stage to stability to generate subjects.'
            )
        rows = _rows(wall, floor, request)
        return EditedImage(write_png(request.width, request.height, RGB, rows), "image/png", "local", 0.0)


def backdrop_of(text: str) -> tuple[int, int]:
    """Colours of the wall and of the floor, 0xRRGGBB, of the backdrop that a text names. Raises TextNotSupported."""
    words = set(re.findall(r"[a-z]+", text.lower().replace("gray", "grey")))
    names = words & set(BACKDROPS)
    if len(names) != 1 or words - names - WORDS:
        raise TextNotSupported(
            f"This stage draws the studio backdrops {', '.join(BACKDROPS)}, such as 'white studio backdrop'; got "
            f'{text!r:.80}. Set the option "editor" of the stage to stability to generate images from any text.'
        )
    return BACKDROPS[names.pop()]


def _rows(wall: int, floor: int, request: EditRequest) -> Iterator[bytes]:
    """The rows of the image: the colour changes from the wall to the floor. The seed moves the horizon by up to 8 % of
    the height."""
    horizon = HORIZON + request.seed % 5 * 0.02
    for row in range(request.height):
        step = min(1.0, max(0.0, (row / request.height - horizon) / CURVE + 0.5))
        share = step * step * (3 - 2 * step)
        colour = bytes(round(a + (b - a) * share) for a, b in zip(_channels(wall), _channels(floor), strict=True))
        yield colour * request.width


def _channels(colour: int) -> bytes:
    return colour.to_bytes(3, "big")
