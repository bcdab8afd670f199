"""Prompts: boxes, points and labels that mark the subject. Boxes (x0, y0, x1, y1) and points (x, y) are in pixels of
the upright image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from maskdrop.errors import InvalidPrompt

Box = tuple[float, float, float, float]
Point = tuple[float, float, int]
Select = Literal["all", "largest"]
Mode = Literal["keep", "ignore"]

FIELDS = ("box", "points", "labels", "label", "select", "min_confidence", "mode")

LABEL_MAX = 64
"""Maximum characters of a label. Amazon Rekognition's longest label has fewer than 40."""

MARKS_MAX = 1000
"""Maximum number of boxes, points and labels of one image. Each may be a separate prompt, which takes one pass of SAM's
decoder: 0.03 to 0.05 s on two cores. A thousand fit into the model server's deadline of 60 s."""

FAR = 1_000_000
"""Maximum of a coordinate, in pixels: larger than any image (a JPEG has at most 65,535 on a side)."""

DECIMALS = 3
"""Decimals to which coordinates are rounded: beyond the precision of every engine."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The location of one subject.

    box: x0, y0, x1, y1 in pixels of the upright image, x0 < x1 and y0 < y1, each within FAR of 0.
    points: (x, y, label) each, label 1 on the subject, 0 on the background. With a label, they select the instances
        whose box contains a point of label 1 and none of label 0.
    label: what a detector finds, such as "face"; each instance becomes a box. "" without a detector.
    select: all instances of the label, or the largest.
    min_confidence: lowest confidence of an instance in percent; None: the detector's own threshold.
    mode: "ignore" removes what the prompt marks from the subject.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()
    label: str = ""
    select: Select = "all"
    min_confidence: float | None = None
    mode: Mode = "keep"

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if self.box:
            data["box"] = list(self.box)
        if self.points:
            data["points"] = [[x, y] for x, y, _ in self.points]
            data["labels"] = [label for _, _, label in self.points]
        if self.label:
            data["label"] = self.label
        if self.select != "all":
            data["select"] = self.select
        if self.min_confidence is not None:
            data["min_confidence"] = self.min_confidence
        if self.mode != "keep":
            data["mode"] = self.mode
        return data

    @classmethod
    def from_json(cls, data: Any) -> Prompt:
        """`data` has the fields of a prompt; points are [[x, y], …], with "labels": [1, 0, …], all 1 by default.

        Without a box or a label, one point must be on the subject. Raises InvalidPrompt.
        """
        if not isinstance(data, dict) or set(data) - set(FIELDS):
            raise InvalidPrompt(
                f'"prompt" must be an object with the fields {", ".join(FIELDS)}, or a list of such objects.'
            )
        prompt = cls(
            _box(data.get("box")),
            _points(data.get("points"), data.get("labels")),
            _label(data.get("label")),
            _choice("select", data.get("select"), get_args(Select)),
            _percent(data.get("min_confidence")),
            _choice("mode", data.get("mode"), get_args(Mode)),
        )
        if prompt.box and prompt.label:
            raise InvalidPrompt("A prompt has either a box or a label; use two prompts.")
        if not prompt.label and (prompt.select != "all" or prompt.min_confidence is not None):
            raise InvalidPrompt('"select" and "min_confidence" need a "label".')
        if prompt.mode == "ignore" and not (prompt.box or prompt.points or prompt.label):
            raise InvalidPrompt('A prompt of the mode "ignore" needs a box, points or a label.')
        if prompt.points and not (prompt.box or prompt.label) and not any(label for _, _, label in prompt.points):
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
        return replace(self, box=clipped)


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
    marks = sum(len(prompt.points) + bool(prompt.box or prompt.label) for prompt in prompts)
    if marks > MARKS_MAX:
        raise InvalidPrompt(f"An image must have at most {MARKS_MAX:,} boxes, points and labels; got {marks:,}.")
    if prompts and all(prompt.mode == "ignore" for prompt in prompts):
        raise InvalidPrompt('One prompt needs the mode "keep".')
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


def _label(data: Any) -> str:
    if data is None:
        return ""
    if not isinstance(data, str) or not 1 <= len(text := data.strip()) <= LABEL_MAX or not text.isprintable():
        raise InvalidPrompt(f'"label" must be 1 to {LABEL_MAX} printable characters, such as "face"; got {data!r:.80}.')
    return text


def _percent(data: Any) -> float | None:
    if data is None:
        return None
    if not _is_near(data) or not 0 <= data <= 100:
        raise InvalidPrompt(f'"min_confidence" must be a number from 0 to 100, in percent; got {data!r:.80}.')
    return round(float(data), DECIMALS)


def _choice(name: str, data: Any, choices: tuple[Any, ...]) -> Any:
    """The first choice where the field is absent."""
    if data is None:
        return choices[0]
    if data not in choices:
        raise InvalidPrompt(f'"{name}" must be one of {", ".join(choices)}; got {data!r:.80}.')
    return data


def _is_place(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_near, value))


def _is_near(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -FAR <= value <= FAR
