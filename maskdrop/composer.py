"""Backgrounds from a text without a service that generates images: a small vocabulary, and no guesses.

A text is understood only if every one of its words is in the tables of this module. Any other text is refused with the
list of what can be drawn.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator
from itertools import cycle, repeat, starmap

from maskdrop.background import DOWN, STOPS_MAX, Colour, Gradient, Studio, colour, gradient_of
from maskdrop.colours import NAMES
from maskdrop.drawing import bayer, colours_along, lit, place_along
from maskdrop.errors import TextNotSupported
from maskdrop.studio import ALIASES, BACKDROPS, Backdrop

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

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

TABLE = 1024
"""Colours that are computed along a gradient, for each threshold of the dithering."""

LEVELS = (*range(256), *[255] * 256)
"""A level by the whole number below it: light above 255 is white."""

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


def draw_png(background: Drawn, width: int, height: int) -> bytes:
    """Draws an opaque background as a PNG of 8-bit RGB: 1 MP takes less than a second on one core."""
    if isinstance(background, Colour):
        line = bytes((background.red, background.green, background.blue)) * width
        rows: Iterable[bytes] = repeat(line, height)
    elif isinstance(background, Gradient):
        rows = _gradient_rows(background, width, height)
    else:
        rows = _studio_rows(BACKDROPS[background.name], width, height)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB, not interlaced
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))  # each row begins with its filter: none
    return PNG_SIGNATURE + b"".join(starmap(_chunk, ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))))


def _gradient_rows(gradient: Gradient, width: int, height: int) -> Iterator[bytes]:
    across, down = place_along(gradient, width, height)
    last, radial = TABLE - 1, gradient.angle is None
    tables = {
        threshold: [bytes(int(level + threshold) for level in levels) for levels in colours_along(gradient, TABLE)]
        for line in bayer()
        for threshold in line
    }
    lines = cycle([[tables[threshold] for threshold in line] for line in bayer()])
    for start, line in zip(down, lines, strict=False):
        places = [place + start for place in across]
        if radial:
            places = [*map(math.sqrt, places)]
        yield b"".join([table[int(place * last + 0.5)] for table, place in zip(cycle(line), places, strict=False)])


def _studio_rows(backdrop: Backdrop, width: int, height: int) -> Iterator[bytes]:
    light = lit(backdrop, width, height)
    columns = [*zip(light.lamp_x, light.corner_x, strict=True)]
    lines = [[line[x % len(line)] for x in range(width)] for line in bayer()]
    for y, (lamp, corner, paper) in enumerate(zip(light.lamp_y, light.corner_y, light.paper, strict=True)):
        shining = [lamp * lamp_x + corner_x + corner for lamp_x, corner_x in columns]
        row = bytearray(3 * width)
        for channel, level in enumerate(paper):
            pairs = zip(shining, lines[y % len(lines)], strict=True)
            row[channel::3] = bytes([LEVELS[int(level * share + threshold)] for share, threshold in pairs])
        yield bytes(row)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


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
