"""Prompts: boxes and points that mark the subject, in pixels of the upright image: (x0, y0, x1, y1) and (x, y)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskdrop.errors import InvalidPrompt

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]

MARKS_MAX = 1000
"""Maximum number of boxes and points of one image. Each may be a separate prompt, which takes one pass of SAM's
decoder: 0.03 to 0.05 s on two cores. A thousand fit into the model server's deadline of 60 s."""

FAR = 1_000_000
"""Maximum of a coordinate, in pixels: larger than any image (a JPEG has at most 65,535 on a side)."""

DECIMALS = 3
"""Decimals to which coordinates are rounded: beyond the precision of every engine."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The location of one subject.

    box: x0, y0, x1, y1 in pixels of the upright image, x0 < x1 and y0 < y1, each within FAR of 0.
    points: (x, y, label) each, label 1 on the subject, 0 on the background.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if self.box:
            data["box"] = list(self.box)
        if self.points:
            data["points"] = [[x, y] for x, y, _ in self.points]
            data["labels"] = [label for _, _, label in self.points]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Prompt:
        """`data` is {"box": [x0, y0, x1, y1], "points": [[x, y], …], "labels": [1, 0, …]}; no labels are all 1.
        Without a box, one point must be on the subject. Raises InvalidPrompt."""
        if not isinstance(data, dict) or set(data) - {"box", "points", "labels"}:
            raise InvalidPrompt(
                '"prompt" must be an object with the fields "box", "points" and "labels", or a list of such objects.'
            )
        prompt = cls(_box(data.get("box")), _points(data.get("points"), data.get("labels")))
        if prompt.points and not prompt.box and not any(label for _, _, label in prompt.points):
            raise InvalidPrompt("No point has the label 1 (subject): add one, or a box.")
        return prompt

    def inside(self, width: int, height: int) -> Prompt:
        """The prompt with its box clipped to an image of width x height pixels. Raises InvalidPrompt for a box
        or a point outside the image."""
        for x, y, _ in self.points:
            if not (0 <= x <= width and 0 <= y <= height):
                raise InvalidPrompt(f"The point {x:g}, {y:g} lies outside the image of {width} x {height} pixels.")
        if self.box is None:
            return self
        x0, y0, x1, y1 = self.box
        clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
        if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
            raise InvalidPrompt(
                f"The box {x0:g}, {y0:g}, {x1:g}, {y1:g} lies outside the image of {width} x {height} pixels."
            )
        return Prompt(clipped, self.points)


Prompts = tuple[Prompt, ...]
"""The prompts of one image; the subject is the union of theirs."""


def prompts_to_json(prompts: Prompts) -> Any:
    """One prompt is an object, several are a list, none is an empty object."""
    listed = [prompt.to_json() for prompt in prompts]
    return listed if len(listed) > 1 else (listed or [{}])[0]


def prompts_from_json(data: Any) -> Prompts:
    """From null, one prompt or a list of prompts; empty ones are omitted. Raises InvalidPrompt, also for more than
    MARKS_MAX boxes and points."""
    listed = data if isinstance(data, list) else [{} if data is None else data]
    prompts = tuple(prompt for prompt in map(Prompt.from_json, listed) if prompt != Prompt())
    marks = sum(len(prompt.points) + (prompt.box is not None) for prompt in prompts)
    if marks > MARKS_MAX:
        raise InvalidPrompt(f"An image must have at most {MARKS_MAX:,} boxes and points; got {marks:,}.")
    return prompts


def _box(data: Any) -> Box | None:
    if data is None:
        return None
    if not isinstance(data, list | tuple) or len(data) != 4 or not all(map(_is_near, data)):
        raise InvalidPrompt(
            f"A box must be four numbers from -{FAR} to {FAR}: x0, y0, x1, y1 in pixels; got {data!r:.80}."
        )
    x0, y0, x1, y1 = (round(float(v), DECIMALS) for v in data)
    if x0 >= x1 or y0 >= y1:
        raise InvalidPrompt(f"The box {x0:g}, {y0:g}, {x1:g}, {y1:g} has no area: x0 < x1 and y0 < y1 are required.")
    return (x0, y0, x1, y1)


def _points(places: Any, labels: Any) -> tuple[Point, ...]:
    places = [] if places is None else places
    if not isinstance(places, list | tuple) or not all(map(_is_place, places)):
        raise InvalidPrompt(f'"points" must be a list of pairs of numbers from -{FAR} to {FAR}: x, y in pixels.')
    labels = [1] * len(places) if labels is None else labels
    if not isinstance(labels, list | tuple) or len(labels) != len(places):
        raise InvalidPrompt(f'"labels" must be a list with one label per point; number of points: {len(places)}.')
    if not all(_is_near(label) and label in (0, 1) for label in labels):
        raise InvalidPrompt(f"A label must be 1 (subject) or 0 (background); got {labels!r:.80}.")
    return tuple(
        (round(float(x), DECIMALS), round(float(y), DECIMALS), int(label))
        for (x, y), label in zip(places, labels, strict=True)
    )


def _is_place(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_near, value))


def _is_near(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -FAR <= value <= FAR
