"""The background of a result: a colour, a gradient, a studio backdrop, the blurred source, or an image.

Each kind has one canonical text, `str()`, that the parser `background` reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from maskdrop.colours import NAMES
from maskdrop.grammar import DECIMALS, NUMBER, TO_100, is_unicode, percent, several, text_of
from maskdrop.studio import ALIASES, BACKDROPS

Fit = Literal["cover", "contain"]

BLUR, BLUR_MIN, BLUR_MAX = 2.0, 0.5, 10.0
"""Default, minimum and maximum of a blur's standard deviation, in percent of the image's longer side. Below the minimum
it hides nothing, above the maximum it is one colour."""

STOPS_MIN, STOPS_MAX = 2, 5
"""Number of colours of a gradient."""

DOWN = 180.0
"""Default angle of a linear gradient, in degrees: from top to bottom, as in CSS."""


@dataclass(frozen=True, slots=True)
class Position:
    """Position in percent of the free canvas: 0 is left or top, 50 is centred."""

    x: float = 50
    y: float = 50

    def __str__(self) -> str:
        return f"{self.x:.10g}% {self.y:.10g}%"


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour in sRGB, each channel 0 to 255; alpha 255 is opaque."""

    red: int
    green: int
    blue: int
    alpha: int = 255

    def __str__(self) -> str:
        digits = bytes((self.red, self.green, self.blue, self.alpha)).hex()
        return f"#{digits if self.alpha < 255 else digits[:6]}"


@dataclass(frozen=True, slots=True)
class Stop:
    """A colour of a gradient and its place along it, in percent."""

    colour: Colour
    at: float


@dataclass(frozen=True, slots=True)
class Gradient:
    """A gradient between opaque colours, which are mixed in sRGB as in CSS.

    stops: the colours in order; no place is before that of the stop in front of it.
    angle: direction of a linear gradient in degrees, 0 to below 360: 0 to the top, 90 to the right, 180 to the bottom.
        None: radial, an ellipse from the centre of the canvas to its corners.
    """

    stops: tuple[Stop, ...]
    angle: float | None = DOWN

    def __str__(self) -> str:
        even = [stop.at for stop in self.stops] == _spread([None] * len(self.stops))
        words = ["gradient"]
        if self.angle is None:
            words.append("radial")
        elif self.angle != DOWN:
            words.append(f"{self.angle:.10g}deg")
        for stop in self.stops:
            words += [str(stop.colour)] if even else [str(stop.colour), f"{stop.at:.10g}%"]
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Studio:
    """A studio backdrop. name: a key of `maskdrop.studio.BACKDROPS`."""

    name: str

    def __str__(self) -> str:
        return f"studio {self.name}"


@dataclass(frozen=True, slots=True)
class Blur:
    """The blurred background of the image. radius: standard deviation in percent of the image's longer side."""

    radius: float = BLUR

    def __str__(self) -> str:
        return f"blur {self.radius:.10g}%"


@dataclass(frozen=True, slots=True)
class BackgroundImage:
    """An image in S3 as background.

    fit: `cover` fills the canvas and cuts off the rest; `contain` shows the whole image.
    position: place of the image, in percent of what is cut off or remains free.
    fill: colour of the canvas that `contain` leaves free; None: transparent.
    """

    bucket: str
    key: str
    fit: Fit = "cover"
    position: Position = Position()
    fill: Colour | None = None

    def to_json(self) -> dict[str, str]:
        """The JSON form, without default values, so that the ids of existing jobs do not change."""
        data = {"bucket": self.bucket, "key": self.key}
        if self.fit != "cover":
            data["fit"] = self.fit
        if self.position != Position():
            data["position"] = str(self.position)
        if self.fill:
            data["fill"] = str(self.fill)
        return data

    def __str__(self) -> str:
        """The text form, such as `contain 50% 100% #ffffff s3://bucket/key`."""
        *options, path = (*[*self.to_json().values()][2:], f"s3://{self.bucket}/{self.key}")
        return " ".join((*options, path))


Background = Colour | Gradient | Studio | Blur | BackgroundImage

_HEX = re.compile(r"#?([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")
_ANGLE = re.compile(rf"{NUMBER}deg")


def background(value: Any) -> Background:
    """Parses a background. Raises ValueError."""
    if isinstance(value, dict):
        return _image(value)
    text = text_of(value)
    words, scheme, path = text.partition("s3://")
    if scheme:
        return _image_text(words.lower().split(), path)
    word, *rest = text.lower().split() or [""]
    if word == "blur":
        return Blur(*(percent(part, BLUR_MIN, BLUR_MAX) for part in several(rest, 0, 1)))
    if word == "gradient":
        return _gradient(rest)
    if word == "studio":
        return _studio(several(rest, 1)[0])
    several(rest, 0)
    return colour(word)


def colour(word: str) -> Colour:
    """Parses a colour: 3, 4, 6 or 8 hexadecimal digits, or a name of CSS. Raises ValueError."""
    found = _HEX.fullmatch(NAMES.get(word, word))
    if not found:
        raise ValueError
    digits = found[1] if len(found[1]) > 4 else "".join(2 * digit for digit in found[1])
    return Colour(*bytes.fromhex(digits))


def opaque(word: str) -> Colour:
    """Parses a colour without transparency. Raises ValueError."""
    found = colour(word)
    return found if found.alpha == 255 else _refused()


def position(value: Any) -> Position | None:
    """Parses a position; "original" is None. Raises ValueError."""
    text = text_of(value)
    if text in ("original", "center"):
        return Position() if text == "center" else None
    shares = several([percent(part) for part in text.split()], 1, 2)
    return Position(*(shares * (2 // len(shares))))


def gradient_of(colours: list[Colour], angle: float | None = DOWN) -> Gradient:
    """A gradient whose colours are spread evenly."""
    return Gradient(tuple(map(Stop, colours, _spread([None] * len(colours)))), angle)


def _refused() -> Any:
    raise ValueError


def _image(fields: dict[str, Any]) -> BackgroundImage:
    """An image from its JSON form."""
    if not {"bucket", "key"} <= set(fields) <= {"bucket", "key", "fit", "position", "fill"}:
        raise ValueError
    if not all(isinstance(part, str) and part and is_unicode(part) for part in fields.values()):
        raise ValueError
    place = position(fields.get("position", "center")) or Position()
    fill = colour(fields["fill"].strip().lower()) if "fill" in fields else None
    match fields.get("fit", "cover"):
        case "contain":
            return BackgroundImage(fields["bucket"], fields["key"], "contain", place, fill)
        case "cover" if fill is None:
            return BackgroundImage(fields["bucket"], fields["key"], "cover", place)
    raise ValueError


def _image_text(words: list[str], path: str) -> BackgroundImage:
    """An image of the form `[cover|contain] [position] [fill] s3://bucket/key`."""
    bucket, _, key = path.partition("/")
    fields = {"bucket": bucket, "key": key}
    if words and words[0] in ("cover", "contain"):
        fields["fit"] = words.pop(0)
    count = sum(word.endswith("%") for word in words)
    if count:
        words, fields["position"] = words[count:], " ".join(words[:count])
    if words:
        fields["fill"] = several(words, 1)[0]
    return _image(fields)


def _gradient(words: list[str]) -> Gradient:
    angle: float | None = DOWN
    if words and words[0] == "radial":
        angle, words = None, words[1:]
    elif words and words[0].endswith("deg"):
        found = _ANGLE.fullmatch(words[0])
        angle, words = float(found[1]) if found else _refused(), words[1:]
        angle = angle % 360 if angle <= 360 else _refused()
    colours: list[Colour] = []
    places: list[float | None] = []
    for word in words:
        if not word.endswith("%"):
            colours.append(opaque(word))
            places.append(None)
        elif colours and places[-1] is None:
            places[-1] = percent(word)
        else:
            raise ValueError
    several(colours, *range(STOPS_MIN, STOPS_MAX + 1))
    return Gradient(tuple(map(Stop, colours, _spread(places))), angle)


def _spread(places: list[float | None]) -> list[float]:
    """Places of all stops, in percent, by the rules of CSS: the first is 0, the last 100, one without a place is spread
    between its neighbours, and none is before the one in front of it."""
    known = [(index, place) for index, place in enumerate(places) if place is not None]
    if not known or known[0][0] > 0:
        known.insert(0, (0, 0.0))
    if known[-1][0] < len(places) - 1:
        known.append((len(places) - 1, 100.0))
    rising: list[tuple[int, float]] = []
    for index, place in known:
        rising.append((index, max(place, rising[-1][1]) if rising else place))
    spread = [rising[0][1]]
    for (start, low), (stop, high) in pairwise(rising):
        spread += [round(low + (high - low) * step / (stop - start), 3) for step in range(1, stop - start + 1)]
    return spread


def _studio(name: str) -> Studio:
    name = ALIASES.get(name, name)
    return Studio(name) if name in BACKDROPS else _refused()


BACKGROUND_GRAMMAR = (
    f'a colour (hexadecimal digits or a CSS name), "gradient COLOUR COLOUR" ({STOPS_MIN} to {STOPS_MAX} colours; '
    f'"radial" or "90deg" before them), "studio" and one of {", ".join(BACKDROPS)}, '
    f'"blur", "blur {BLUR_MIN:g}%" to "blur {BLUR_MAX:g}%", or an image, s3://bucket/key or {{"bucket", "key"}}'
)

OPAQUE_PATTERN = rf"(?:#?(?:[0-9a-fA-F]{{3}}|[0-9a-fA-F]{{6}})|{'|'.join(NAMES)})"

_TO_360 = rf"(?:360(?:\.0{{1,3}})?|(?:3[0-5]|[12]?[0-9])?[0-9]{DECIMALS})"

BACKGROUND_PATTERN = (
    "#?(?:[0-9a-fA-F]{4}|[0-9a-fA-F]{8})|"
    rf"{OPAQUE_PATTERN}|"
    rf"gradient(?: radial| {_TO_360}deg)?(?: {OPAQUE_PATTERN}(?: {TO_100}%)?){{{STOPS_MIN},{STOPS_MAX}}}|"
    rf"studio (?:{'|'.join((*BACKDROPS, *ALIASES))})|"
    rf"blur(?: (?:10(?:\.0{{1,3}})?|[1-9]{DECIMALS}|0\.[5-9][0-9]{{0,2}})%)?"
)
