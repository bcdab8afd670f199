"""Strokes: corrections of the alpha by a brush, as data. The source and the engine's alpha stay as they are, so that a
result can be made again with other strokes. Points are in pixels of the upright image, as those of a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from maskdrop.errors import InvalidOptions
from maskdrop.grammar import DECIMALS
from maskdrop.lengths import Length, Unit, length
from maskdrop.prompt import FAR

StrokeMode = Literal["erase", "restore"]
"""erase: makes the alpha transparent. restore: makes it opaque, or as opaque as the source itself is."""

StrokePoint = tuple[float, float]

FIELDS = ("mode", "width", "hardness", "points")

STROKES_MAX = 200
"""Maximum number of strokes of one image."""

POINTS_MAX = 5_000
"""Maximum number of points of all strokes: 75 kB in the record of a job, which DynamoDB limits to 400 kB. A brush that
drops points closer than half a pixel to the line of their neighbours writes 10 to 40 for each stroke."""

WIDTH_MIN = 0.5
"""Smallest width of a stroke, in pixels. A thinner one has no pixel whose centre it covers."""

WIDTH_MAX: dict[Unit, float] = {"px": 2000, "%": 50}
"""Largest width of a stroke. A width in percent is at most the one in pixels for every size of the image: this bounds
the memory for the distances to the line."""

_PIXELS = rf"2000(?:\.0{{1,3}})?|(?:1[0-9]{{3}}|[1-9][0-9]{{0,2}}){DECIMALS}|0\.[5-9][0-9]{{0,2}}"
_PERCENT = rf"50(?:\.0{{1,3}})?|(?:[1-4][0-9]|[1-9]){DECIMALS}|0\.(?:[1-9][0-9]{{0,2}}|0[1-9][0-9]?|00[1-9])"
WIDTH_PATTERN = rf"(?:{_PIXELS})px|(?:{_PERCENT})%"
"""Pattern of a width as text, for the OpenAPI document."""

POINT_DECIMALS = 1
"""Decimals to which points are rounded: the mask is drawn on whole pixels."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """One line of a round brush.

    mode: see StrokeMode.
    width: diameter of the brush, in pixels or in percent of the longer side of the upright image; at most 2,000 pixels.
    hardness: share of the radius with full effect, 0 to 1; the effect falls to 0 at the rim. With 1, the rim is one
        pixel wide.
    points: (x, y) in pixels of the upright image, each within FAR of 0; may lie outside the image. One point is a dot.
    """

    mode: StrokeMode
    width: Length
    hardness: float
    points: tuple[StrokePoint, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "width": str(self.width),
            "hardness": self.hardness,
            "points": [list(point) for point in self.points],
        }

    @classmethod
    def from_json(cls, data: Any) -> Stroke:
        """`width` is a number of pixels, or a text such as 40px or 2%; `hardness` is 1 by default. Raises
        InvalidOptions."""
        if not isinstance(data, dict):
            raise InvalidOptions(f"A stroke must be an object with the fields {', '.join(FIELDS)}; got {data!r:.80}.")
        if unknown := set(data) - set(FIELDS):
            raise InvalidOptions(
                f"A stroke has no field {', '.join(sorted(map(repr, unknown)))}; its fields are {', '.join(FIELDS)}."
            )
        mode: Any = data.get("mode")
        if mode not in get_args(StrokeMode):
            raise InvalidOptions(f'"mode" of a stroke must be erase or restore; got {mode!r:.80}.')
        return cls(mode, _width(data.get("width")), _hardness(data.get("hardness")), _points(data.get("points")))


Strokes = tuple[Stroke, ...]
"""The strokes of one image, in the order in which they are drawn."""


def strokes_from_json(data: Any) -> Strokes:
    """From null or a list of strokes. Raises InvalidOptions, also above STROKES_MAX and POINTS_MAX."""
    if data is None:
        return ()
    if not isinstance(data, list) or len(data) > STROKES_MAX:
        raise InvalidOptions(f'"strokes" must be a list of at most {STROKES_MAX} strokes; {_number(data)}.')
    strokes = tuple(map(Stroke.from_json, data))
    points = sum(len(stroke.points) for stroke in strokes)
    if points > POINTS_MAX:
        raise InvalidOptions(
            f"The strokes of an image must have at most {POINTS_MAX:,} points; got {points:,}. Leave out points that "
            "lie on the line between their neighbours."
        )
    return strokes


def _number(data: Any) -> str:
    return f"got {len(data)}" if isinstance(data, list) else f"got {data!r:.80}"


def _width(data: Any) -> Length:
    try:
        if isinstance(data, str):
            width = length(data.strip(), WIDTH_MAX)
        else:
            width = Length(round(float(data), 3)) if _is_number(data) else Length(0)
    except ValueError:
        width = Length(0)
    if not (WIDTH_MIN if width.unit == "px" else 0) <= width.value <= WIDTH_MAX[width.unit] or width.value == 0:
        raise InvalidOptions(
            f'"width" of a stroke must be a number of pixels, or a text such as 40px or 2%: {WIDTH_MIN:g}px to '
            f"{WIDTH_MAX['px']:g}px, or at most {WIDTH_MAX['%']:g}% of the longer side; got {data!r:.80}."
        )
    return width


def _hardness(data: Any) -> float:
    if data is None:
        return 1.0
    if not _is_number(data) or not 0 <= data <= 1:
        raise InvalidOptions(f'"hardness" of a stroke must be a number from 0 to 1; got {data!r:.80}.')
    return round(float(data), 2)


def _points(data: Any) -> tuple[StrokePoint, ...]:
    if not isinstance(data, list | tuple) or not data or not all(map(_is_place, data)):
        raise InvalidOptions(
            f'"points" of a stroke must be a list of one or more pairs of numbers from -{FAR} to {FAR}: x, y in '
            f"pixels of the upright image; got {data!r:.80}."
        )
    return tuple((round(float(x), POINT_DECIMALS), round(float(y), POINT_DECIMALS)) for x, y in data)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -FAR <= value <= FAR


def _is_place(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))
