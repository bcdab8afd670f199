"""The form of a result: its file format, size and place on the canvas, and what is behind the subject.

One grammar for the API, presets, the command line and the vendors' dialects: every field is a short text, `FIELDS` says
which, and `Output` holds it parsed. The words are those of remove.bg, where it has one. What the geometry means is in
`sagemaker_model/imaging/layout.py`, in this order: region of interest, crop, scale and position, size, background.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from maskdrop.colours import NAMES
from maskdrop.errors import InvalidOptions, OptionsConflict, RegionEmpty, RegionOutside

Format = Literal["png", "webp", "jpg", "zip"]
Channels = Literal["rgba", "alpha"]
Size = Literal["preview", "medium", "hd", "original"]
Unit = Literal["px", "%"]

CONTENT_TYPE: dict[Format, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "jpg": "image/jpeg",
    "zip": "application/zip",
}

PIXELS_MAX: dict[Size, int | None] = {"preview": 250_000, "medium": 1_500_000, "hd": 4_000_000, "original": None}
"""Pixels of a result, by its size: remove.bg's classes. None: as many as the source gives."""

SIZE_ALIASES: dict[str, Size] = {
    "small": "preview",
    "regular": "preview",
    "full": "original",
    "4k": "original",
    "auto": "original",
}

MARGIN_MAX: dict[Unit, float] = {"px": 500, "%": 50}
SCALE_MIN = 10.0
BLUR, BLUR_MIN, BLUR_MAX = 2.0, 0.5, 10.0
"""Percent of the image's longer side. Below the least a blur hides nothing, above the most it is one colour."""


@dataclass(frozen=True, slots=True)
class Length:
    """Along one side of something: pixels of the upright source, or percent of that side. At most three decimals."""

    value: float
    unit: Unit = "px"

    def of(self, side: float) -> float:
        """In pixels."""
        return self.value if self.unit == "px" else side * self.value / 100

    def __str__(self) -> str:
        return f"{self.value:.10g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Region:
    """The region of interest, from one corner to the other; what lies outside is background."""

    x0: Length
    y0: Length
    x1: Length
    y1: Length

    def inside(self, width: int, height: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in whole pixels of an image. Raises RegionOutside and RegionEmpty."""
        x0, x1 = round(self.x0.of(width)), round(self.x1.of(width))
        y0, y1 = round(self.y0.of(height)), round(self.y1.of(height))
        if max(x0, x1) > width or max(y0, y1) > height:
            raise RegionOutside(f'"output.roi" {self} reaches beyond the image of {width} x {height} pixels.', "roi")
        if x0 >= x1 or y0 >= y1:
            raise RegionEmpty(f'"output.roi" {self} holds no pixel: x1 < x2 and y1 < y2 are needed.', "roi")
        return x0, y0, x1, y1

    def __str__(self) -> str:
        return f"{self.x0} {self.y0} {self.x1} {self.y1}"


@dataclass(frozen=True, slots=True)
class Margins:
    """What is left around a cropped subject. Percent are of its own width and height."""

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


@dataclass(frozen=True, slots=True)
class Position:
    """Percent of the room that the subject leaves on the canvas: 0 at the left and top, 50 centred."""

    x: float = 50
    y: float = 50

    def __str__(self) -> str:
        return f"{self.x:.10g}% {self.y:.10g}%"


@dataclass(frozen=True, slots=True)
class Colour:
    """sRGB, 0 to 255 each; alpha 255 is opaque."""

    red: int
    green: int
    blue: int
    alpha: int = 255

    def __str__(self) -> str:
        digits = bytes((self.red, self.green, self.blue, self.alpha)).hex()
        return f"#{digits if self.alpha < 255 else digits[:6]}"


@dataclass(frozen=True, slots=True)
class BackgroundImage:
    """An image in S3, scaled to cover the canvas and centred."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Blur:
    """The image's own background out of focus: the standard deviation in percent of the image's longer side."""

    radius: float = BLUR

    def __str__(self) -> str:
        return f"blur {self.radius:.10g}%"


Background = Colour | BackgroundImage | Blur


@dataclass(frozen=True, slots=True)
class Output:
    """The form of the result. The defaults are the whole image, as large as it came, with straight alpha.

    format: the file format; png and webp keep alpha exactly, jpg is laid on white, zip holds color.jpg and alpha.png.
    channels: `rgba` is the cut-out, `alpha` the matte alone in grey (255 = subject).
    size: how many pixels the result has at most; nothing is enlarged to it.
    roi: what of the image may be subject; None: all.
    crop: the canvas ends with the subject and these margins; None: it is the image's.
    scale: the share of the canvas that the subject fills in width or height, in percent; None: as it is.
    position: where the subject is on the canvas; None: where it was, or in the middle where it is scaled.
    background: what is laid behind the subject; None: nothing.

    Raises OptionsConflict for a matte with a background, or in a zip.
    """

    format: Format = "png"
    channels: Channels = "rgba"
    size: Size = "original"
    roi: Region | None = None
    crop: Margins | None = None
    scale: float | None = None
    position: Position | None = None
    background: Background | None = None

    def __post_init__(self) -> None:
        if self.channels == "alpha" and self.background:
            raise OptionsConflict('A matte has no background: "output.channels" is "rgba" with one.', "channels")
        if self.channels == "alpha" and self.format == "zip":
            raise OptionsConflict('A zip holds colours and matte: "output.channels" is "rgba" with it.', "channels")

    def to_json(self) -> dict[str, Any]:
        """The one way to write it: the same result has the same text, whichever alias asked for it. Of the defaults
        only `format` and `channels` are written, so that a field that is added changes the id of no job."""
        chosen: dict[str, Any] = {
            "size": None if self.size == "original" else self.size,
            "roi": self.roi,
            "crop": self.crop,
            "scale": None if self.scale is None else f"{self.scale:.10g}%",
            "position": self.position,
            "background": self.background,
        }
        data: dict[str, Any] = {"format": self.format, "channels": self.channels}
        data |= {name: str(value) for name, value in chosen.items() if value is not None}
        if isinstance(self.background, BackgroundImage):
            data["background"] = {"bucket": self.background.bucket, "key": self.background.key}
        return data

    @classmethod
    def from_json(cls, data: Any) -> Output:
        """Raises what `parsed` raises, and OptionsConflict."""
        return cls(**parsed(data))


def parsed(data: Any) -> dict[str, Any]:
    """Each field by itself, from an object with any of FIELDS; null is as good as absent. Raises InvalidOptions, whose
    `field` is the name and whose message says what it may be."""
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidOptions('"output" is an object.')
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in FIELDS:
            raise InvalidOptions(f'"output" has no field {name!r:.80}; it has: {", ".join(FIELDS)}.')
        if value is None:
            continue
        field = FIELDS[name]
        try:
            values[name] = field.parse(value)
        except ValueError as error:
            raise InvalidOptions(f'"output.{name}" is {field.grammar}; not {value!r:.80}.', name) from error
    return values


# The grammar. Each parser raises ValueError, whatever it is given.

_NUMBER = r"([0-9]{1,6}(?:\.[0-9]{1,3})?)"
_LENGTH = re.compile(rf"(?:{_NUMBER}(px|%)|0)")
_PERCENT = re.compile(rf"{_NUMBER}%")
_HEX = re.compile(r"#?([0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value.strip()


def _one_of(values: tuple[str, ...], aliases: Mapping[str, str]) -> Callable[[Any], str]:
    known = {**{value: value for value in values}, **aliases}

    def parse(value: Any) -> str:
        text = _text(value)
        if text not in known:
            raise ValueError
        return known[text]

    return parse


def _length(text: str, most: dict[Unit, float]) -> Length:
    found = _LENGTH.fullmatch(text)
    if not found:
        raise ValueError
    length = Length(float(found[1]), found[2]) if found[1] else Length(0.0)  # type: ignore[arg-type]
    if length.unit in most and length.value > most[length.unit]:
        raise ValueError
    return length


def _percent(text: str, least: float = 0, most: float = 100) -> float:
    found = _PERCENT.fullmatch(text)
    if not found or not least <= float(found[1]) <= most:
        raise ValueError
    return float(found[1])


def _roi(value: Any) -> Region:
    return Region(*_several([_length(part, {"%": 100}) for part in _text(value).split()], 4))


def _crop(value: Any) -> Margins | None:
    if value is False or value == "false":
        return None
    if value is True or value == "true":
        return Margins()
    sides = _several([_length(part, MARGIN_MAX) for part in _text(value).split()], 1, 2, 4)
    return Margins(*(sides * (4 // len(sides))))


def _scale(value: Any) -> float | None:
    text = _text(value)
    return None if text == "original" else _percent(text, SCALE_MIN)


def _position(value: Any) -> Position | None:
    text = _text(value)
    if text in ("original", "center"):
        return Position() if text == "center" else None
    shares = _several([_percent(part) for part in text.split()], 1, 2)
    return Position(*(shares * (2 // len(shares))))


def _background(value: Any) -> Background:
    if isinstance(value, dict):
        if set(value) != {"bucket", "key"} or not all(isinstance(part, str) and part for part in value.values()):
            raise ValueError
        return BackgroundImage(**value)
    text = _text(value)
    if text.startswith("s3://"):
        bucket, _, key = text.removeprefix("s3://").partition("/")
        return _background({"bucket": bucket, "key": key})
    word, *rest = text.lower().split() or [""]
    if word == "blur":
        return Blur(*(_percent(part, BLUR_MIN, BLUR_MAX) for part in _several(rest, 0, 1)))
    _several(rest, 0)
    if word in NAMES:
        word = NAMES[word]
    found = _HEX.fullmatch(word)
    if not found:
        raise ValueError
    digits = found[1] if len(found[1]) > 4 else "".join(2 * digit for digit in found[1])
    return Colour(*bytes.fromhex(digits))


def _several(values: list[Any], *counts: int) -> list[Any]:
    if len(values) not in counts:
        raise ValueError
    return values


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an output.

    grammar: the end of a sentence "It is …".
    pattern: a regular expression (of ECMA-262 as well) of the texts that `parse` takes, as the API's description has
        it: all but the blanks, leading zeros and capitals that are taken too, and images in S3.
    """

    grammar: str
    pattern: str
    parse: Callable[[Any], Any]


_DECIMALS = r"(?:\.[0-9]{1,3})?"
_TO_50 = rf"(?:50(?:\.0{{1,3}})?|[1-4]?[0-9]{_DECIMALS})"
_TO_100 = rf"(?:100(?:\.0{{1,3}})?|[1-9]?[0-9]{_DECIMALS})"
_TO_500 = rf"(?:500(?:\.0{{1,3}})?|(?:[1-4]?[0-9])?[0-9]{_DECIMALS})"
_PLACE = rf"(?:[0-9]{{1,6}}{_DECIMALS}px|{_TO_100}%|0)"
_MARGIN = rf"(?:{_TO_500}px|{_TO_50}%|0)"

FIELDS: dict[str, Field] = {
    "format": Field(
        f"one of {', '.join(get_args(Format))}",
        "|".join((*get_args(Format), "jpeg")),
        _one_of(get_args(Format), {"jpeg": "jpg"}),
    ),
    "channels": Field(
        f"one of {', '.join(get_args(Channels))}", "|".join(get_args(Channels)), _one_of(get_args(Channels), {})
    ),
    "size": Field(
        f"one of {', '.join((*get_args(Size), *SIZE_ALIASES))}",
        "|".join((*get_args(Size), *SIZE_ALIASES)),
        _one_of(get_args(Size), SIZE_ALIASES),
    ),
    "roi": Field('"x1 y1 x2 y2", each as in 20px or 10%', rf"{_PLACE}(?: {_PLACE}){{3}}", _roi),
    "crop": Field(
        "true, false, or its margins: one for all sides, two (top and bottom, left and right) or four (top, right, "
        "bottom, left), each as in 20px (at most 500px) or 10% (at most 50%)",
        rf"true|false|{_MARGIN}(?: {_MARGIN}(?: {_MARGIN} {_MARGIN})?)?",
        _crop,
    ),
    "scale": Field(
        f'"original", or {SCALE_MIN:g}% to 100%',
        rf"original|(?:100(?:\.0{{1,3}})?|[1-9][0-9]{_DECIMALS})%",
        _scale,
    ),
    "position": Field(
        '"original", "center", or one or two of 0% to 100% (across, down)',
        rf"original|center|{_TO_100}%(?: {_TO_100}%)?",
        _position,
    ),
    "background": Field(
        "a colour (3, 4, 6 or 8 hexadecimal digits, or a name of CSS), "
        f'"blur", "blur {BLUR_MIN:g}%" to "blur {BLUR_MAX:g}%", or an image, s3://bucket/key or {{"bucket", "key"}}',
        "#?(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})|"
        rf"blur(?: (?:10(?:\.0{{1,3}})?|[1-9]{_DECIMALS}|0\.[5-9][0-9]{{0,2}})%)?|{'|'.join(NAMES)}",
        _background,
    ),
}
