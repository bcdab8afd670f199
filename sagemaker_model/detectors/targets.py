"""Resolves the prompts of an image to targets: the instances that an engine segments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from maskdrop.catalog import SubjectKind
from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import MARKS_MAX, Point, Prompt, Prompts
from sagemaker_model.detectors.base import Detections, Detector
from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

INSTANCES_MAX = 64
"""Maximum instances of one label, and maximum results of one image. Each may become a file, which takes about 0.1 s at
12 MP."""

DETECTOR_MASK = "fallback_engine: no weights of sam2 or sam are installed; the mask is the detector's own."
"""Warning of a result with a mask of the detector."""

CONFIDENCE_MIN = 1e-6
"""The lowest confidence that is not a detector's own threshold, for a prompt with `min_confidence` 0."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One instance to segment.

    prompt: its box or points. label, score: of the detector that found it; "" and None for a caller's box or points.
    mask: its alpha, where the detector returned one.
    """

    prompt: Prompt
    label: str = ""
    score: float | None = None
    mask: Alpha | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """The targets of an image. prompted: whether there were prompts; without any, `keep` and `ignore` are empty."""

    keep: tuple[Target, ...] = ()
    ignore: tuple[Target, ...] = ()
    prompted: bool = False
    warnings: tuple[str, ...] = ()
    cost_usd: float = 0.0


def find_targets(rgb: Pixels, prompts: Prompts, detector: Detector, *, masks: bool = False) -> Targets:
    """Returns the targets of `rgb`, HxWx3 uint8: labels become the boxes that `detector` finds.

    masks: also requests masks, for engines that segment a box badly. Raises what `detector.detect` raises, and
    InvalidPrompt for more than MARKS_MAX targets.
    """
    found = _detect(rgb, prompts, detector, masks=masks)
    targets: dict[str, list[Target]] = {"keep": [], "ignore": []}
    warnings = [warning for one in found.values() for warning in one.warnings]
    cost_usd = sum(one.cost_usd for one in found.values())
    for prompt in prompts:
        instances = _instances(prompt, found[prompt.min_confidence is None]) if prompt.label else [Target(prompt)]
        if not instances:
            warnings.append(f"label_not_found: found no {prompt.label!r} in the image.")
        if len(instances) > INSTANCES_MAX:
            warnings.append(
                f"instances_omitted: found {len(instances)} instances of {prompt.label!r}; the {INSTANCES_MAX} with "
                "the highest confidence are used."
            )
        targets[prompt.mode] += instances[:INSTANCES_MAX]
    if sum(map(len, targets.values())) > MARKS_MAX:
        raise InvalidPrompt(
            f"The labels of the prompts select more than {MARKS_MAX:,} instances: use fewer prompts, or a higher "
            '"min_confidence".'
        )
    return Targets(tuple(targets["keep"]), tuple(targets["ignore"]), bool(prompts), tuple(warnings), cost_usd)


def _detect(rgb: Pixels, prompts: Prompts, detector: Detector, *, masks: bool) -> dict[bool, Detections]:
    """Returns the detections by whether the prompts have a `min_confidence`: at most two calls, which may cost money.
    One finds labels by the detector's own threshold, the other by the lowest confidence of the prompts."""
    found = {}
    for own in (True, False):
        group = [prompt for prompt in prompts if prompt.label and (prompt.min_confidence is None) is own]
        if group:
            lowest = 0.0 if own else max(min(prompt.min_confidence or 0.0 for prompt in group) / 100, CONFIDENCE_MIN)
            labels = list(dict.fromkeys(prompt.label for prompt in group))
            found[own] = detector.detect(rgb, labels, lowest, masks=masks)
    return found


def _instances(prompt: Prompt, found: Detections) -> list[Target]:
    """Returns the detected instances that a label prompt selects, the highest confidence first."""
    targets = []
    for index, label in enumerate(found.labels):
        box = tuple(float(value) for value in found.boxes[index])
        if label.casefold() != prompt.label.casefold() or not _selects(prompt.points, box):
            continue
        if float(found.scores[index]) < (prompt.min_confidence or 0.0) / 100:
            continue
        inside = tuple(point for point in prompt.points if _contains(box, point))
        mask = found.masks[index] if found.masks else None
        mask = None if mask is None else replace(mask, warnings=(DETECTOR_MASK,))
        resolved = Prompt(box=(box[0], box[1], box[2], box[3]), points=inside, label=label)
        targets.append(Target(resolved, label, float(found.scores[index]), mask))
    if prompt.select == "largest" and targets:
        return [max(targets, key=_area)]
    return targets


def _selects(points: Iterable[Point], box: tuple[float, ...]) -> bool:
    """Whether the points select the instance in this box: one of label 1, if there are any, and none of label 0."""
    inside = [label for *place, label in points if _contains(box, (*place, label))]
    wanted = any(label for *_, label in points)
    return 0 not in inside and (not wanted or 1 in inside)


def _contains(box: tuple[float, ...], point: tuple[float, ...]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def _area(target: Target) -> float:
    x0, y0, x1, y1 = target.prompt.box or (0.0, 0.0, 0.0, 0.0)
    return (x1 - x0) * (y1 - y0)


def empty_alpha() -> Alpha:
    """The alpha of an image without a subject."""
    return Alpha(np.zeros((2, 2), np.float32))


def union(parts: Iterable[Alpha]) -> Alpha:
    """The larger value of several alphas at each pixel, at the size of the largest one.

    It has the kind and the engine of the parts if they agree, and the score of the only part.
    """
    found = list(parts)
    if len(found) == 1:
        return found[0]
    shape = max((one.values.shape for one in found), key=lambda shape: shape[0] * shape[1])
    values = [one.values if one.values.shape == shape else resized(one.values, shape[::-1]) for one in found]
    warnings = dict.fromkeys(warning for one in found for warning in one.warnings)
    kinds, engines = {one.kind for one in found}, {one.engine for one in found}
    kind: SubjectKind = kinds.pop() if len(kinds) == 1 else "unknown"
    return Alpha(np.maximum.reduce(values), tuple(warnings), kind, engines.pop() if len(engines) == 1 else "")


def without(alpha: Alpha, ignored: Alpha) -> Alpha:
    """`alpha` reduced by what `ignored` covers."""
    values = ignored.values
    if values.shape != alpha.values.shape:
        values = resized(values, (alpha.values.shape[1], alpha.values.shape[0]))
    return replace(alpha, values=alpha.values * (1 - values))
