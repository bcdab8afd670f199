"""The form of a result: file format, size, position on the canvas, and background.

The API, presets, the command line and the dialects share one grammar: every field is a short text that `FIELDS`
describes and parses; `Output` contains the parsed values. Field names are remove.bg's where it has one. The geometry is
applied in `sagemaker_model/imaging/layout.py`, in the order region of interest, crop, scale and position, size,
background.
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
"""Maximum pixels of a result by size class, as in remove.bg. None: those of the source."""

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
"""Default, minimum and maximum of a blur's standard deviation, in percent of the image's longer side. Below the minimum
it hides nothing, above the maximum it is one colour."""


@dataclass(frozen=True, slots=True)
class Length:
    """A length along one side: pixels of the upright source, or percent of that side. At most three decimals."""

    value: float
    unit: Unit = "px"

    def of(self, side: float) -> float:
        """The length in pixels, for a side of `side` pixels."""
        return self.value if self.unit == "px" else side * self.value / 100

    def __str__(self) -> str:
        return f"{self.value:.10g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Region:
    """The region of interest, between two opposite corners; everything outside is background."""

    x0: Length
    y0: Length
    x1: Length
    y1: Length

    def inside(self, width: int, height: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in whole pixels of an image. Raises RegionOutside and RegionEmpty."""
        x0, x1 = round(self.x0.of(width)), round(self.x1.of(width))
        y0, y1 = round(self.y0.of(height)), round(self.y1.of(height))
        if max(x0, x1) > width or max(y0, y1) > height:
            raise RegionOutside(
                f'"output.roi" must be inside the image of {width} x {height} pixels; got {self}.', "roi"
            )
        if x0 >= x1 or y0 >= y1:
            raise RegionEmpty(f'"output.roi" must contain a pixel, with x1 < x2 and y1 < y2; got {self}.', "roi")
        return x0, y0, x1, y1

    def __str__(self) -> str:
        return f"{self.x0} {self.y0} {self.x1} {self.y1}"


@dataclass(frozen=True, slots=True)
class Margins:
    """Margins around a cropped subject, in pixels or in percent of the subject's width and height."""

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
    """Position of the subject in percent of the free canvas: 0 is left or top, 50 is centred."""

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
class BackgroundImage:
    """An image in S3 as background, scaled to cover the canvas and centred."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Blur:
    """The blurred background of the image. radius: standard deviation in percent of the image's longer side."""

    radius: float = BLUR

    def __str__(self) -> str:
        return f"blur {self.radius:.10g}%"


Background = Colour | BackgroundImage | Blur


@dataclass(frozen=True, slots=True)
class Output:
    """The form of a result. By default: the whole image in its size, with straight alpha.

    format: the file format. png and webp keep alpha exactly, jpg has a white background, zip contains color.jpg and
        alpha.png.
    channels: `rgba` is the cut-out, `alpha` the matte in grey (255 = subject).
    size: the maximum size; a smaller result is not enlarged.
    roi: the region that may contain the subject; None: the whole image.
    crop: crops the canvas to the subject with these margins; None: no crop.
    scale: share of the canvas that the subject fills in width or height, in percent; None: not scaled.
    position: position of the subject on the canvas; None: unchanged, or centred where it is scaled.
    background: the background behind the subject; None: transparent.

    Raises OptionsConflict for a matte with a background or in a zip.
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
            raise OptionsConflict('"output.channels" must be "rgba" with a background; got "alpha".', "channels")
        if self.channels == "alpha" and self.format == "zip":
            raise OptionsConflict('"output.channels" must be "rgba" with the format zip; got "alpha".', "channels")

    def to_json(self) -> dict[str, Any]:
        """The canonical JSON form: aliases of the same result have the same text. Of the defaults only `format` and
        `channels` are written, so that a new field does not change the ids of existing jobs."""
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
        """Raises as `parsed` does, and OptionsConflict."""
        return cls(**parsed(data))


def parsed(data: Any) -> dict[str, Any]:
    """Parses each field of an output object on its own; null means absent. Raises InvalidOptions that names the field
    and the accepted values."""
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidOptions(f'"output" must be an object with the fields {", ".join(FIELDS)}; got {data!r:.80}.')
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name not in FIELDS:
            raise InvalidOptions(f'"output" has no field {name!r:.80}; its fields are {", ".join(FIELDS)}.')
        if value is None:
            continue
        field = FIELDS[name]
        try:
            values[name] = field.parse(value)
        except ValueError as error:
            raise InvalidOptions(f'"output.{name}" must be {field.grammar}; got {value!r:.80}.', name) from error
    return values


# The grammar. Each parser takes any JSON value and raises ValueError for one that is not accepted.

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


def _length(text: str, maximum: dict[Unit, float]) -> Length:
    found = _LENGTH.fullmatch(text)
    if not found:
        raise ValueError
    length = Length(float(found[1]), found[2]) if found[1] else Length(0.0)  # type: ignore[arg-type]
    if length.unit in maximum and length.value > maximum[length.unit]:
        raise ValueError
    return length


def _percent(text: str, minimum: float = 0, maximum: float = 100) -> float:
    found = _PERCENT.fullmatch(text)
    if not found or not minimum <= float(found[1]) <= maximum:
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

    grammar: accepted values, as the end of the sentence "The field must be …".
    pattern: a regular expression, valid in ECMA-262 too, for the OpenAPI document. `parse` accepts more: surrounding
        spaces, leading zeros, capitals, and images in S3.
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
    "roi": Field('"x1 y1 x2 y2", each such as 20px or 10%', rf"{_PLACE}(?: {_PLACE}){{3}}", _roi),
    "crop": Field(
        "true, false, or margins: one for all sides, two (top and bottom, left and right) or four (top, right, "
        "bottom, left), each such as 20px (at most 500px) or 10% (at most 50%)",
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
        "a colour (3, 4, 6 or 8 hexadecimal digits, or a CSS colour name), "
        f'"blur", "blur {BLUR_MIN:g}%" to "blur {BLUR_MAX:g}%", or an image, s3://bucket/key or {{"bucket", "key"}}',
        "#?(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})|"
        rf"blur(?: (?:10(?:\.0{{1,3}})?|[1-9]{_DECIMALS}|0\.[5-9][0-9]{{0,2}})%)?|{'|'.join(NAMES)}",
        _background,
    ),
}
