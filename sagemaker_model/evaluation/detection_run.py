"""A run of a detector: its detections in a data set and their scores, stored in a folder; and a comparison of two.

run.json          detector and data, the scores, and the images on which the detector failed
detections.json   {"a.jpg": [{"label", "score", "box": [x0, y0, x1, y1]}]}, pixels of the upright image
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from maskdrop.errors import MaskdropError
from sagemaker_model.data.detection import DetectionRecord, DetectionSet, read_set
from sagemaker_model.data.records import InvalidData
from sagemaker_model.detectors.base import Detections, Detector
from sagemaker_model.evaluation.detection import (
    Counts,
    DetectionScores,
    Found,
    coco_scores,
    count_matches,
    total,
)
from sagemaker_model.evaluation.summary import Table, Unscored

RUN, DETECTIONS = "run.json", "detections.json"

LOWEST_SCORE = 0.001
"""Confidence, 0..1, from which detections are requested: average precision needs the whole curve, and a detector's own
threshold ends it early."""

MATCH_IOU, MATCH_SCORE = 0.5, 0.5
"""IoU of precision, recall and F1, and the default of their score, which the images of reports have too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionInfo:
    """Detector and data of a run. Names are keys of run.json.

    detector: its name, or the file name of its weights. weights_sha256: "" without weights. data: path of the data set.
    classes: that count. data_sha256: see `digest`. score: from which precision, recall and F1 count a detection.
    """

    detector: str
    weights_sha256: str
    data: str
    split: str
    classes: tuple[str, ...]
    data_sha256: str
    score: float = MATCH_SCORE


@dataclass(frozen=True, slots=True)
class Outcome:
    """The detections in one image. seconds: of the detector alone. fault: reason why it failed; "" if it did not."""

    found: Found
    seconds: float
    fault: str = ""


@dataclass(frozen=True)
class DetectionRun:
    """Results of an evaluation. found: the detections of each record of `data`. seconds: median per image.
    unscored: images on which the detector failed; they count as images in which it found nothing."""

    info: DetectionInfo
    data: DetectionSet
    found: tuple[Found, ...]
    seconds: float
    unscored: list[Unscored]

    @cached_property
    def scores(self) -> DetectionScores:
        return coco_scores(self.data.records, self.found, self.data.names)

    @cached_property
    def counts(self) -> dict[str, Counts]:
        """Correct, missed and extra boxes by class at MATCH_IOU and the score of the run."""
        return count_matches(self.data.records, self.found, self.data.names, iou=MATCH_IOU, score=self.info.score)

    def f1(self, number: int) -> float:
        """Returns the F1 score of one image at MATCH_IOU and the score of the run, 0..1; 1 for nothing to find and
        nothing found."""
        one = (self.data.records[number],), (self.found[number],), self.data.names
        counts = total(count_matches(*one, iou=MATCH_IOU, score=self.info.score))
        boxes = 2 * counts.correct + counts.missed + counts.extra
        return 2 * counts.correct / boxes if boxes else 1.0


# Evaluation


def evaluate(
    detector: Detector, data: DetectionSet, *, workers: int, monotonic: Callable[[], float] = time.perf_counter
) -> Iterator[Outcome]:
    """Yields the outcome of each record, in order, as soon as it is ready. workers: number of threads."""
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(partial(_detect, detector=detector, names=data.names, monotonic=monotonic), data.records)


def _detect(
    record: DetectionRecord, *, detector: Detector, names: Sequence[str], monotonic: Callable[[], float]
) -> Outcome:
    nothing = Found(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    try:
        image = record.read()
        start = monotonic()
        detections = detector.detect(image, (), LOWEST_SCORE)
    except MaskdropError as error:
        return Outcome(nothing, 0.0, error.message)
    return Outcome(Found.of(detections, names), monotonic() - start)


def run_of(info: DetectionInfo, data: DetectionSet, outcomes: Sequence[Outcome]) -> DetectionRun:
    """Returns the run with these outcomes of the records of `data`."""
    times = [one.seconds for one in outcomes if not one.fault]
    return DetectionRun(
        info,
        data,
        tuple(one.found for one in outcomes),
        float(np.median(times)) if times else 0.0,
        [
            Unscored(record.file.name, one.fault)
            for record, one in zip(data.records, outcomes, strict=True)
            if one.fault
        ],
    )


def read_data(source: Path, split: str, classes: Sequence[str] = ()) -> tuple[DetectionSet, str]:
    """Reads the records of a split, with the boxes of some classes (() for all), and their digest.
    Raises InvalidData."""
    data = read_set(source, split)
    data = data.only(classes) if classes else data
    return data, digest(data)


def digest(data: DetectionSet) -> str:
    """Returns a SHA-256 of the classes, images and boxes. Raises InvalidData for a missing image."""
    result = hashlib.sha256(json.dumps(data.names).encode())
    for record in data.records:
        for values in (record.boxes, record.labels, record.crowd):
            result.update(values.tobytes())
        try:
            with record.file.open("rb") as file:
                result.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise InvalidData(f"{record.file} cannot be read ({error.strerror}).") from error
    return result.hexdigest()


# The folder of a run


def write_run(run: DetectionRun, folder: Path) -> None:
    """Writes a run. Creates the folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RUN).unlink(missing_ok=True)  # marks the run as incomplete until the end
    detections = {
        record.file.name: [
            {"label": run.data.names[label], "score": float(score), "box": box.tolist()}
            for box, score, label in zip(one.boxes, one.scores, one.labels, strict=True)
        ]
        for record, one in zip(run.data.records, run.found, strict=True)
    }
    (folder / DETECTIONS).write_text(json.dumps(detections, ensure_ascii=False) + "\n", encoding="utf-8")
    content = {
        "about": asdict(run.info),
        "seconds": run.seconds,
        "scores": scores_json(run.scores),
        "matches": asdict(total(run.counts)),
        "faults": [asdict(one) for one in run.unscored],
    }
    (folder / RUN).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def is_run(folder: Path) -> bool:
    """Returns whether a folder has a complete run of a detector."""
    return (folder / RUN).is_file() and (folder / DETECTIONS).is_file()


def read_run(folder: Path) -> DetectionRun:
    """Reads a run and its data set. Raises InvalidData for a folder without a complete run, and for a data set that has
    changed since."""
    try:
        content = json.loads((folder / RUN).read_text(encoding="utf-8"))
        detections = json.loads((folder / DETECTIONS).read_text(encoding="utf-8"))
        info = DetectionInfo(**content["about"] | {"classes": tuple(content["about"]["classes"])})
        data, sha256 = read_data(Path(info.data), info.split, info.classes)
        if sha256 != info.data_sha256:
            raise InvalidData(f"{info.data} has changed since the run in {folder}: evaluate again.")
        found = tuple(Found.of(_detections(detections[record.file.name]), data.names) for record in data.records)
        return DetectionRun(info, data, found, content["seconds"], [Unscored(**one) for one in content["faults"]])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidData(f"{folder} is not a complete run of `maskdrop detector evaluate --out`: {error}.") from error


def _detections(rows: Sequence[dict[str, Any]]) -> Detections:
    return Detections(
        np.array([row["box"] for row in rows], np.float32).reshape(-1, 4),
        np.array([row["score"] for row in rows], np.float32),
        tuple(row["label"] for row in rows),
    )


def scores_json(scores: DetectionScores) -> dict[str, Any]:
    """Returns the scores as JSON values; null for figures without a true box."""
    values = asdict(scores)
    classes = [{name: _null(value) for name, value in row.items()} for row in values.pop("classes")]
    return {name: _null(value) for name, value in values.items()} | {"classes": classes}


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


# Tables

FIGURES = {
    "mAP": "map", "mAP50": "map50", "mAP75": "map75", "small": "map_small", "medium": "map_medium",
    "large": "map_large", "AR 1": "ar1", "AR 10": "ar10", "AR 100": "ar100",
}  # fmt: skip
"""Columns of the first table, and the fields of `DetectionScores`."""


def tables(run: DetectionRun) -> list[Table]:
    """Returns the tables of one run: COCO's figures, precision and recall, and the classes."""
    return [_figures_table({run.info.detector: run}), _counts_table({run.info.detector: run}), _classes_table(run)]


def _figures_table(runs: dict[str, DetectionRun]) -> Table:
    rows = [(name, *(rounded(getattr(run.scores, field)) for field in FIGURES.values())) for name, run in runs.items()]
    return Table("COCO's average precision and recall", ("detector", *FIGURES), rows)


def _counts_table(runs: dict[str, DetectionRun]) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, run in runs.items():
        counts = total(run.counts)
        boxes = (str(counts.correct), str(counts.missed), str(counts.extra))
        shares = (rounded(counts.precision), rounded(counts.recall))
        before, after = (str(len(run.found)), f"{run.info.score:g}"), f"{run.seconds * 1000:.0f}"
        rows.append((name, *before, *boxes, *shares, after))
    return Table(
        f"Boxes at IoU {MATCH_IOU}",
        ("detector", "images", "score", "correct", "missed", "extra", "precision", "recall", "ms per image"),
        rows,
    )


def _classes_table(run: DetectionRun) -> Table:
    rows: list[tuple[str, ...]] = []
    for one in run.scores.classes:
        counts = run.counts[one.name]
        if one.boxes or counts.extra:
            shares = rounded(counts.precision), rounded(counts.recall)
            rows.append((one.name, str(one.boxes), rounded(one.ap), rounded(one.ap50), *shares))
    return Table("Classes", ("class", "boxes", "AP", "AP50", "precision", "recall"), rows)


def rounded(value: float) -> str:
    """Returns a number with three decimals; a hyphen for NaN."""
    return "-" if math.isnan(value) else f"{value:.3f}"


# Comparison


@dataclass(frozen=True, slots=True)
class DetectionComparison:
    """Two runs on the same images."""

    a: DetectionRun
    b: DetectionRun

    @property
    def names(self) -> tuple[str, str]:
        """The names of both detectors; with the start of their weights' SHA-256 if the names are equal."""
        a, b = self.a.info, self.b.info
        if a.detector != b.detector:
            return a.detector, b.detector
        return f"{a.detector} {a.weights_sha256[:8]} (A)", f"{b.detector} {b.weights_sha256[:8]} (B)"

    def tables(self) -> list[Table]:
        """Returns the tables of both runs, with a row for each class."""
        runs = dict(zip(self.names, (self.a, self.b), strict=True))
        rows: list[tuple[str, ...]] = []
        for one, other in zip(self.a.scores.classes, self.b.scores.classes, strict=True):
            if one.boxes:
                gain = other.ap - one.ap
                precisions = rounded(one.ap), rounded(other.ap), f"{gain:+.3f}", rounded(one.ap50), rounded(other.ap50)
                rows.append((one.name, str(one.boxes), *precisions))
        header = ("class", "boxes", "A: AP", "B: AP", "B - A", "A: AP50", "B: AP50")
        classes = Table(f"Classes: A is {self.names[0]}, B is {self.names[1]}", header, rows)
        return [_figures_table(runs), _counts_table(runs), classes]

    def gains(self) -> list[tuple[float, int]]:
        """Returns the difference B - A of the F1 score and the number of each record, largest difference first."""
        numbers = range(len(self.a.found))
        return sorted(
            ((self.b.f1(number) - self.a.f1(number), number) for number in numbers), key=lambda pair: -pair[0]
        )


def compare(a: DetectionRun, b: DetectionRun) -> DetectionComparison:
    """Compares two runs. Raises InvalidData for runs on different images, boxes or classes."""
    if a.info.data_sha256 != b.info.data_sha256:
        raise InvalidData(
            f"{a.info.detector} and {b.info.detector} were evaluated on different images, boxes or classes: "
            "the SHA-256 of their data differ."
        )
    return DetectionComparison(a, b)
