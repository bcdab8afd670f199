"""COCO's measures of a detector: mean average precision (mAP), average recall, and precision and recall at one score.

The definitions are those of COCO's own evaluation (cocodataset.org, "Detection evaluation"; pycocotools.cocoeval); a
test compares all twelve figures with pycocotools. Boxes are matched by class and image, the highest score first, each
to the free true box that it overlaps most. A true box without a detection counts as missed.

IoU is computed in pixels without an additional pixel: `x1 - x0 + 1`, which counts inclusive integer coordinates, makes
boxes overlap that do not touch, the more so on coordinates of 0..1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sagemaker_model.data.detection import Bools, DetectionRecord, Floats, Labels
from sagemaker_model.data.records import InvalidData
from sagemaker_model.detectors.base import Detections

IOUS = np.linspace(0.5, 0.95, 10)
"""IoU from which a detection is correct; mAP is the mean over all ten."""

RECALLS = np.linspace(0, 1, 101)
"""Recall values at which precision is read."""

AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""Ranges of the true area in pixels, both ends included. True boxes outside are ignored."""

LIMITS = (1, 10, 100)
"""Numbers of detections per image and class that average recall counts; average precision counts the last."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The detections in one image. boxes: Nx4 float32, pixels x0, y0, x1, y1. scores: N float32, 0..1.
    labels: N int64, index into the names of the set."""

    boxes: Floats
    scores: Floats
    labels: Labels

    @classmethod
    def of(cls, detections: Detections, names: Sequence[str]) -> Found:
        """Returns detections with labels as indexes into `names`, letter case ignored; without other labels."""
        index = {name.casefold(): number for number, name in enumerate(names)}
        labels = np.array([index.get(label.casefold(), -1) for label in detections.labels], np.int64)
        known = labels >= 0
        return cls(detections.boxes[known], detections.scores[known], labels[known])

    def from_score(self, score: float) -> Found:
        """Returns the detections with this score or a higher one."""
        sure = self.scores >= score
        return Found(self.boxes[sure], self.scores[sure], self.labels[sure])


@dataclass(frozen=True, slots=True)
class ClassScores:
    """Average precision of one class. boxes: number of true boxes, without crowds. NaN without true boxes."""

    name: str
    boxes: int
    ap: float
    ap50: float


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """COCO's twelve figures, 0..1; NaN where no true box counts. Names are keys of run.json.

    map: mean average precision over the ten IoUs and all classes with true boxes; map50, map75: at one IoU;
    map_small, map_medium, map_large: of true boxes of these areas.
    ar1, ar10, ar100: average recall with so many detections per image and class; ar_small...: of these areas.
    """

    map: float
    map50: float
    map75: float
    map_small: float
    map_medium: float
    map_large: float
    ar1: float
    ar10: float
    ar100: float
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[ClassScores, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """Matches at one IoU and score. correct: true boxes with a detection. missed: true boxes without one.
    extra: detections without a true box."""

    correct: int
    missed: int
    extra: int

    @property
    def precision(self) -> float:
        """Share of the detections that are correct; NaN without detections."""
        return self.correct / (self.correct + self.extra) if self.correct + self.extra else float("nan")

    @property
    def recall(self) -> float:
        """Share of the true boxes that are detected; NaN without true boxes."""
        return self.correct / (self.correct + self.missed) if self.correct + self.missed else float("nan")


def coco_scores(truths: Sequence[DetectionRecord], found: Sequence[Found], names: Sequence[str]) -> DetectionScores:
    """Returns COCO's figures. found: the detections of each record. Raises InvalidData for another number of images."""
    _check_lengths(truths, found)
    # Average precision by area range, IoU and class; average recall also by limit.
    precision = np.full((len(AREAS), len(IOUS), len(names)), np.nan)
    recall = np.full((len(LIMITS), *precision.shape), np.nan)
    boxes = [0] * len(names)
    for label in range(len(names)):
        outcome = _match_class(truths, found, label, IOUS, LIMITS[-1])
        boxes[label] = int(outcome.positives[0])
        for area, positives in enumerate(outcome.positives):
            if positives:
                for limit, most in enumerate(LIMITS):
                    curve = _curve(outcome, area, most)
                    recall[limit, area, :, label] = curve.correct[:, -1] / positives if curve.correct.size else 0
                precision[area, :, label] = _average_precision(curve, positives)
    maps = [_mean(precision[area]) for area in range(len(AREAS))]
    recalls = [_mean(recall[limit, 0]) for limit in range(len(LIMITS))]
    recalls_of_area = [_mean(recall[-1, area]) for area in range(len(AREAS))]
    return DetectionScores(
        map=maps[0],
        map50=_mean(precision[0, 0]),
        map75=_mean(precision[0, 5]),
        map_small=maps[1],
        map_medium=maps[2],
        map_large=maps[3],
        ar1=recalls[0],
        ar10=recalls[1],
        ar100=recalls[2],
        ar_small=recalls_of_area[1],
        ar_medium=recalls_of_area[2],
        ar_large=recalls_of_area[3],
        classes=tuple(
            ClassScores(name, count, _mean(precision[0, :, label]), float(precision[0, 0, label]))
            for label, (name, count) in enumerate(zip(names, boxes, strict=True))
        ),
    )


def count_matches(
    truths: Sequence[DetectionRecord], found: Sequence[Found], names: Sequence[str], *, iou: float, score: float
) -> dict[str, Counts]:
    """Counts correct, missed and extra boxes by class, at the IoU `iou` and for detections of at least `score`.
    Raises InvalidData for another number of images."""
    _check_lengths(truths, found)
    sure = [one.from_score(score) for one in found]
    counts = {}
    for label, name in enumerate(names):
        outcome = _match_class(truths, sure, label, np.array([iou]), None)
        correct, extra = outcome.correct[0, 0].sum(), outcome.extra[0, 0].sum()
        counts[name] = Counts(int(correct), int(outcome.positives[0] - correct), int(extra))
    return counts


def total(counts: dict[str, Counts]) -> Counts:
    """Returns the sum over the classes."""
    return Counts(
        sum(one.correct for one in counts.values()),
        sum(one.missed for one in counts.values()),
        sum(one.extra for one in counts.values()),
    )


def pairwise_ious(found: Floats, true: Floats, crowd: Bools) -> Doubles:
    """Returns the IoU of each detection with each true box: D x G float64, 0..1.

    found: D x 4, true: G x 4, both x0, y0, x1, y1. For a crowd, the intersection is divided by the detection's area.
    """
    one, other = found.astype(np.float64)[:, None], true.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    intersection = np.maximum(sides, 0).prod(-1)
    area_found, area_true = ((boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (one, other))
    union = np.where(crowd[None], area_found, area_found + area_true - intersection)
    ious: Doubles = np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
    return ious


def _check_lengths(truths: Sequence[DetectionRecord], found: Sequence[Found]) -> None:
    if len(truths) != len(found):
        raise InvalidData(f"{len(found)} images have detections; the data set has {len(truths)} images.")


def _mean(values: Doubles) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


# Matching


class _Outcome(NamedTuple):
    """The detections of one class in all images, highest score first within an image; D of them.

    scores: D. ranks: D, position of the score within its image. correct, extra: areas x IoUs x D bool; both false where
    a detection is ignored. positives: number of true boxes that count, by area.
    """

    scores: Doubles
    ranks: Labels
    correct: Bools
    extra: Bools
    positives: Labels


def _match_class(
    truths: Sequence[DetectionRecord], found: Sequence[Found], label: int, ious: Doubles, limit: int | None
) -> _Outcome:
    """Matches the detections of one class in all images. limit: number of detections per image that count."""
    count, areas, nobody = len(ious), len(AREAS), np.zeros(0)
    none = np.zeros((areas, count, 0), np.bool_)
    rows = [_Outcome(nobody, nobody.astype(np.int64), none, none, np.zeros(areas, np.int64))]
    for truth, detections in zip(truths, found, strict=True):
        true, mine = truth.labels == label, detections.labels == label
        if true.any() or mine.any():
            order = np.argsort(-detections.scores[mine], kind="stable")[:limit]
            boxes, scores = detections.boxes[mine][order], detections.scores[mine][order].astype(np.float64)
            rows.append(_match_image(boxes, scores, truth, true, ious))
    scores, ranks, correct, extra, positives = zip(*rows, strict=True)
    return _Outcome(
        np.concatenate(scores),
        np.concatenate(ranks),
        np.concatenate(correct, -1),
        np.concatenate(extra, -1),
        np.sum(positives, 0),
    )


def _match_image(boxes: Floats, scores: Doubles, truth: DetectionRecord, true: Bools, ious: Doubles) -> _Outcome:
    """Matches detections, in the order of their scores, with the true boxes `true` of an image."""
    crowd = truth.crowd[true]
    ranges = np.array(list(AREAS.values()))
    areas_true = _areas(truth.boxes[true]) if truth.areas is None else truth.areas[true].astype(np.float64)
    ignored = crowd | _outside(areas_true, ranges)  # areas x G
    overlaps = pairwise_ious(boxes, truth.boxes[true], crowd)
    least = np.minimum(ious, 1 - 1e-10)[:, None]
    shape = len(AREAS), len(ious)
    taken = np.zeros((*shape, len(crowd)), np.bool_)
    matched = np.zeros((*shape, len(boxes)), np.bool_)
    on_ignored = np.zeros_like(matched)
    for number, overlap in enumerate(overlaps if len(crowd) else ()):
        free = (overlap >= least) & (crowd | ~taken)
        counted = free & ~ignored[:, None]
        # A true box that counts goes before one that is ignored, and the last one of equals before the others.
        eligible = np.where(counted.any(-1, keepdims=True), counted, free)
        best = len(crowd) - 1 - np.where(eligible, overlap, -1)[..., ::-1].argmax(-1)
        matched[..., number] = eligible.any(-1)
        on_ignored[..., number] = matched[..., number] & np.take_along_axis(ignored, best, 1)
        area, at = np.nonzero(matched[..., number])
        taken[area, at, best[area, at]] = True
    wrong_size = ~matched & _outside(_areas(boxes), ranges)[:, None]
    return _Outcome(scores, np.arange(len(boxes)), matched & ~on_ignored, ~matched & ~wrong_size, (~ignored).sum(1))


def _areas(boxes: Floats) -> Doubles:
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    return np.asarray(sides.prod(1), np.float64)


def _outside(areas: Doubles, ranges: Doubles) -> Bools:
    """Returns whether each area is outside each range: ranges x areas."""
    return (areas < ranges[:, :1]) | (areas > ranges[:, 1:])


# The curve of precision over recall


class _Curve(NamedTuple):
    """Numbers of correct and extra detections down to each score: IoUs x D float64."""

    correct: Doubles
    extra: Doubles


def _curve(outcome: _Outcome, area: int, most: int) -> _Curve:
    """Counts the `most` first detections of each image, all images together in the order of their scores."""
    counted = outcome.ranks < most
    order = np.argsort(-outcome.scores[counted], kind="stable")
    correct, extra = (
        np.cumsum(values[area][:, counted][:, order], 1, dtype=np.float64)
        for values in (outcome.correct, outcome.extra)
    )
    return _Curve(correct, extra)


def _average_precision(curve: _Curve, positives: int) -> Doubles:
    """Returns the mean precision at RECALLS for each IoU. The precision at a recall is the highest at it or above."""
    recall, counted = curve.correct / positives, curve.correct + curve.extra
    precision = np.divide(curve.correct, counted, out=np.zeros_like(counted), where=counted > 0)
    highest = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
    at = np.array([np.searchsorted(row, RECALLS, side="left") for row in recall])
    padded = np.pad(highest, ((0, 0), (0, 1)))  # a recall that is not reached has the precision 0
    return np.asarray(np.take_along_axis(padded, at, 1).mean(1), np.float64)
