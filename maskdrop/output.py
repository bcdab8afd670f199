"""The form of a result: file format, size, position on the canvas, shadow and background.

The API, presets, the command line and the dialects share one grammar: every field is a short text that `FIELDS`
describes and parses; `Output` contains the parsed values. Field names are remove.bg's where it has one. The geometry is
applied in `sagemaker_model/imaging/geometry.py`, in the order region of interest, crop, outline, padding or scale,
position, canvas, size, shadow, background.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from maskdrop.background import (
    BACKGROUND_GRAMMAR,
    BACKGROUND_PATTERN,
    Background,
    BackgroundImage,
    Position,
    background,
    position,
)
from maskdrop.canvas import CANVAS_GRAMMAR, CANVAS_PATTERN, PADDING_MAX, AspectRatio, Canvas, Marketplace, canvas
from maskdrop.errors import InvalidOptions, OptionsConflict, RegionEmpty, RegionOutside
from maskdrop.grammar import DECIMALS, FALSE, TO_100, TRUE, boolean, percent, several, text_of
from maskdrop.lengths import Length, Margins, Unit, length, margins, margins_pattern
from maskdrop.outline import OUTLINE_GRAMMAR, OUTLINE_PATTERN, Outline, outline
from maskdrop.shadow import SHADOW_GRAMMAR, SHADOW_PATTERN, Shadow, shadow

Format = Literal["png", "webp", "avif", "jpg", "zip"]
Channels = Literal["rgba", "alpha"]
Size = Literal["preview", "medium", "hd", "original"]
Metadata = Literal["strip", "keep", "keep_gps"]

CONTENT_TYPE: dict[Format, str] = {
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
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
    "50mp": "original",
    "auto": "original",
}

MARGIN_MAX: dict[Unit, float] = {"px": 500, "%": 50}
SCALE_MIN = 10.0


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
class Output:
    """The form of a result. By default: the whole image in its size, with straight alpha.

    format: the file format. png and webp keep alpha exactly, jpg has a white background, zip contains color.jpg and
        alpha.png.
    channels: `rgba` is the cut-out, `alpha` the matte in grey (255 = subject).
    size: the maximum size; a smaller result is not enlarged.
    roi: the region that may contain the subject; None: the whole image.
    crop: crops the image to the subject with these margins, in percent of the subject's width and height; None: no
        crop.
    outline: the band of one colour around the subject; None: none.
    canvas: the size or the aspect ratio of the result; None: that of the image, of the cropped subject or of the
        subject with its padding.
    padding: what remains free between the subject and the border of the canvas, in percent of its width and height;
        None: the subject keeps its place in the image.
    scale: share of the canvas that the subject fills in width or height, in percent; None: not scaled.
    position: position of the subject on the canvas; None: unchanged, or centred where it is scaled.
    shadow: the shadow that the subject casts; None: no shadow.
    background: the background behind the subject; None: transparent.
    metadata: strip: no metadata of the source is written. keep: its EXIF and copyright, without the position. keep_gps:
        the position, too.

    Raises OptionsConflict for a matte with a background, a shadow or an outline, or in a zip; for a padding with
    margins or a scale; and for a canvas in pixels with a limit on the size, or without room for the subject.
    """

    format: Format = "png"
    channels: Channels = "rgba"
    size: Size = "original"
    roi: Region | None = None
    crop: Margins | None = None
    outline: Outline | None = None
    canvas: Canvas | AspectRatio | None = None
    padding: Margins | None = None
    scale: float | None = None
    position: Position | None = None
    shadow: Shadow | None = None
    background: Background | None = None
    metadata: Metadata = "strip"

    def __post_init__(self) -> None:
        for name in ("background", "shadow", "outline"):
            if self.channels == "alpha" and getattr(self, name):
                article = "an" if name == "outline" else "a"
                raise OptionsConflict(
                    f'"output.channels" must be "rgba" with {article} {name}; got "alpha".', "channels"
                )
        if self.channels == "alpha" and self.format == "zip":
            raise OptionsConflict('"output.channels" must be "rgba" with the format zip; got "alpha".', "channels")
        if self.padding and self.crop not in (None, Margins()):
            raise OptionsConflict(
                f'"output.padding" already crops to the subject; leave out the margins "output.crop", {self.crop}.',
                "crop",
            )
        if self.padding and self.scale is not None:
            raise OptionsConflict(
                '"output.padding" and "output.scale" both set the size of the subject; send one of them.', "scale"
            )
        if isinstance(self.canvas, Canvas):
            self._check_canvas(self.canvas)

    def _check_canvas(self, canvas: Canvas) -> None:
        if self.size != "original":
            raise OptionsConflict(
                f'"output.size" must be "original" with a canvas in pixels, which is the size of the result; got '
                f'"{self.size}". Send an aspect ratio to limit its pixels.',
                "size",
            )
        padding = self.padding or Margins()
        band = self.outline.width.value if self.outline and self.outline.width.unit == "px" else 0.0
        share = 1.0 if self.scale is None else self.scale / 100
        across = canvas.width - padding.left.of(canvas.width) - padding.right.of(canvas.width)
        down = canvas.height - padding.top.of(canvas.height) - padding.bottom.of(canvas.height)
        if share * min(across, down) - 2 * band < 1:
            raise OptionsConflict(
                f"Padding, scale and outline leave no pixel of the canvas {canvas} for the subject; reduce the padding "
                "or the outline, or enlarge the canvas.",
                "canvas",
            )

    def to_json(self) -> dict[str, Any]:
        """The canonical JSON form: aliases of the same result have the same text. Of the defaults only `format` and
        `channels` are written, so that a new field does not change the ids of existing jobs."""
        chosen: dict[str, Any] = {
            "size": None if self.size == "original" else self.size,
            "roi": self.roi,
            "crop": self.crop,
            "outline": self.outline,
            "canvas": self.canvas,
            "padding": self.padding,
            "scale": None if self.scale is None else f"{self.scale:.10g}%",
            "position": self.position,
            "shadow": self.shadow,
            "background": self.background,
            "metadata": None if self.metadata == "strip" else self.metadata,
        }
        data: dict[str, Any] = {"format": self.format, "channels": self.channels}
        data |= {name: str(value) for name, value in chosen.items() if value is not None}
        if isinstance(self.background, BackgroundImage):
            data["background"] = self.background.to_json()
        return data

    @classmethod
    def from_json(cls, data: Any) -> Output:
        """Raises as `parsed` does, and OptionsConflict."""
        return cls.of(parsed(data))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Output:
        """The output of parsed values. A marketplace becomes its canvas, and its padding and background where none is
        given. Raises OptionsConflict."""
        place = values.get("canvas")
        if not isinstance(place, Marketplace):
            return cls(**values)
        rules: dict[str, Any] = {}
        if "scale" not in values and values.get("crop", Margins()) == Margins():
            rules["padding"] = place.padding
        if values.get("channels") != "alpha":
            rules["background"] = place.background
        return cls(**{**rules, **values, "canvas": place.canvas})


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


def _one_of(values: tuple[str, ...], aliases: Mapping[str, str]) -> Callable[[Any], str]:
    known = {**{value: value for value in values}, **aliases}

    def parse(value: Any) -> str:
        text = text_of(value).lower()
        if text not in known:
            raise ValueError
        return known[text]

    return parse


def _roi(value: Any) -> Region:
    return Region(*several([length(part, {"%": 100}) for part in text_of(value).split()], 4))


def _crop(value: Any) -> Margins | None:
    if isinstance(value, bool) or text_of(value).lower() in (TRUE | FALSE) - {"0"}:
        return Margins() if boolean(value) else None
    return margins(value, MARGIN_MAX)


def _scale(value: Any) -> float | None:
    text = text_of(value)
    return None if text == "original" else percent(text, SCALE_MIN)


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


_TO_50 = rf"(?:50(?:\.0{{1,3}})?|[1-4]?[0-9]{DECIMALS})"
_TO_500 = rf"(?:500(?:\.0{{1,3}})?|(?:[1-4]?[0-9])?[0-9]{DECIMALS})"
_PLACE = rf"(?:[0-9]{{1,6}}{DECIMALS}px|{TO_100}%|0)"
_TO_45 = rf"(?:45(?:\.0{{1,3}})?|(?:4[0-4]|[1-3]?[0-9]){DECIMALS})"
_TO_2000 = rf"(?:2000(?:\.0{{1,3}})?|(?:1[0-9]{{3}}|[1-9]?[0-9]{{1,2}}){DECIMALS})"
_PADDING = rf"(?:{_TO_2000}px|{_TO_45}%|0)"
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
        f"one of {', '.join((*get_args(Size), *SIZE_ALIASES))} (an exact size is a canvas)",
        "|".join((*get_args(Size), *SIZE_ALIASES)),
        _one_of(get_args(Size), SIZE_ALIASES),
    ),
    "roi": Field('"x1 y1 x2 y2", each such as 20px or 10%', rf"{_PLACE}(?: {_PLACE}){{3}}", _roi),
    "crop": Field(
        "true, false, or margins: one for all sides, two (top and bottom, left and right) or four (top, right, "
        "bottom, left), each such as 20px (at most 500px) or 10% (at most 50%)",
        rf"true|false|{margins_pattern(_MARGIN)}",
        _crop,
    ),
    "outline": Field(OUTLINE_GRAMMAR, OUTLINE_PATTERN, outline),
    "canvas": Field(CANVAS_GRAMMAR, CANVAS_PATTERN, canvas),
    "padding": Field(
        "the space between the subject and the border of the canvas: one for all sides, two (top and bottom, left and "
        f"right) or four (top, right, bottom, left), each such as 20px (at most {PADDING_MAX['px']:g}px) or 10% (at "
        f"most {PADDING_MAX['%']:g}%)",
        margins_pattern(_PADDING),
        lambda value: margins(value, PADDING_MAX),
    ),
    "scale": Field(
        f'"original", or {SCALE_MIN:g}% to 100%',
        rf"original|(?:100(?:\.0{{1,3}})?|[1-9][0-9]{DECIMALS})%",
        _scale,
    ),
    "position": Field(
        '"original", "center", or one or two of 0% to 100% (across, down)',
        rf"original|center|{TO_100}%(?: {TO_100}%)?",
        position,
    ),
    "shadow": Field(SHADOW_GRAMMAR, SHADOW_PATTERN, shadow),
    "background": Field(
        BACKGROUND_GRAMMAR,
        BACKGROUND_PATTERN,
        background,
    ),
    "metadata": Field(
        f"one of {', '.join(get_args(Metadata))}", "|".join(get_args(Metadata)), _one_of(get_args(Metadata), {})
    ),
}
