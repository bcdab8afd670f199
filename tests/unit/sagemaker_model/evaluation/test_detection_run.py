"""Runs of detectors: storage, tables, comparison, report and promotion."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from sagemaker_model.data.detection import IMAGES, DetectionSet, read_set
from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.detection_report import comparison_page, run_page
from sagemaker_model.evaluation.detection_run import (
    DetectionInfo,
    DetectionRun,
    compare,
    digest,
    evaluate,
    read_run,
    run_of,
    scores_json,
    tables,
    write_run,
)
from sagemaker_model.evaluation.promote import NotPromoted, promote_detector
from tests.unit.sagemaker_model.evaluation.coloured import ColourDetector, write_scenes

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "data")
    return tmp_path / "data"


def evaluated(folder: Path, detector: ColourDetector, name: str, data: DetectionSet | None = None) -> DetectionRun:
    data = data or read_set(folder, "val")
    info = DetectionInfo(
        detector=name,
        weights_sha256=detector.weights_sha256,
        data=str(folder),
        split="val",
        classes=data.names,
        data_sha256=digest(data),
    )
    return run_of(info, data, list(evaluate(detector, data, workers=2)))


def test_a_perfect_detector_has_the_map_1(folder: Path) -> None:
    run = evaluated(folder, ColourDetector(), "perfect")
    assert run.scores.map == 1
    assert {name: (one.correct, one.missed, one.extra) for name, one in run.counts.items()} == {
        "car": (2, 0, 0),
        "person": (3, 0, 0),
    }
    assert run.seconds > 0


def test_a_run_is_read_back_with_its_data_and_scores(folder: Path, tmp_path: Path) -> None:
    run = evaluated(folder, ColourDetector(shift=2, fails=True), "shifted")
    write_run(run, tmp_path / "run")
    read = read_run(tmp_path / "run")
    assert scores_json(read.scores) == scores_json(run.scores)
    assert read.info == run.info
    assert [(one.id, one.reason) for one in read.unscored] == [("none.png", "The image has no rectangle.")]
    stored = json.loads((tmp_path / "run" / "run.json").read_text())
    assert stored["scores"]["map"] == run.scores.map
    assert stored["scores"]["map_large"] is None


def test_a_run_on_data_that_has_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    write_run(evaluated(folder, ColourDetector(), "a"), tmp_path / "run")
    cv2.imwrite(str(folder / IMAGES / "one.png"), np.zeros((80, 100, 3), np.uint8))
    with pytest.raises(InvalidData, match="has changed"):
        read_run(tmp_path / "run")
    with pytest.raises(InvalidData, match="not a complete run"):
        read_run(tmp_path)


def test_the_table_of_classes_states_average_precision_and_recall(folder: Path) -> None:
    *_, classes = tables(evaluated(folder, ColourDetector(labels=("car",)), "cars"))
    assert classes.rows == [
        ("car", "2", "1.000", "1.000", "1.000", "1.000"),
        ("person", "3", "0.000", "0.000", "-", "0.000"),
    ]


def test_a_comparison_states_both_detectors_by_class_and_the_images_that_differ(folder: Path) -> None:
    comparison = compare(
        evaluated(folder, ColourDetector(labels=("car",)), "cars"), evaluated(folder, ColourDetector(), "all")
    )
    figures, _, classes = comparison.tables()
    assert [row[:2] for row in figures.rows] == [("cars", "0.500"), ("all", "1.000")]
    assert classes.rows[1][:5] == ("person", "3", "0.000", "1.000", "+1.000")
    names = [comparison.a.data.records[number].file.name for gain, number in comparison.gains() if gain > 0]
    assert names == ["three.png", "two.png"]


def test_runs_on_other_boxes_are_not_compared(folder: Path) -> None:
    data = read_set(folder, "val")
    other = DetectionSet(data.names, (replace(data.records[0], boxes=data.records[0].boxes + 1), *data.records[1:]))
    with pytest.raises(InvalidData, match="different images"):
        compare(evaluated(folder, ColourDetector(), "a"), evaluated(folder, ColourDetector(), "b", other))


def test_the_page_of_a_comparison_shows_true_boxes_and_both_detectors(folder: Path) -> None:
    page = comparison_page(
        compare(
            evaluated(folder, ColourDetector(labels=("car",)), "<cars>"), evaluated(folder, ColourDetector(), "all")
        )
    )
    assert "&lt;cars&gt;" in page
    assert "<cars>" not in page
    assert page.count("<figure>") == 4
    assert page.count("data:image/jpeg") == 3 * 4
    assert page.index("three.png") < page.index("two.png") < page.index("Equal F1") < page.index("one.png")


def test_the_page_of_a_run_shows_the_worst_images_first_and_the_faults(folder: Path) -> None:
    page = run_page(evaluated(folder, ColourDetector(labels=("car",), fails=True), "cars"))
    assert "The image has no rectangle." in page
    assert page.index("three.png ·") < page.index("two.png ·") < page.index("one.png ·")


class Promoter:
    """Calls `promote_detector` with a separate record. installed: number of installations."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.installed = 0

    def __call__(self, new: DetectionRun, current: DetectionRun | None) -> None:
        promote_detector(new, current, self.record, self._install, NOW)

    def _install(self) -> None:
        self.installed += 1


@pytest.fixture
def promoter(tmp_path: Path) -> Promoter:
    return Promoter(tmp_path / "promotions.jsonl")


def test_a_detector_with_the_same_or_a_higher_map_is_promoted_and_recorded(folder: Path, promoter: Promoter) -> None:
    shifted, exact = evaluated(folder, ColourDetector(shift=8), "old"), evaluated(folder, ColourDetector(), "new")
    promoter(exact, shifted)
    promoter(exact, exact)
    promoter(shifted, None)
    assert promoter.installed == 3
    first, _, last = map(json.loads, promoter.record.read_text().splitlines())
    assert first["new"]["map"] == 1 > first["replaced"]["map"]
    assert first["date"] == "2026-11-29T12:00:00+00:00"
    assert first["data"] == {"sha256": exact.info.data_sha256, "split": "val"}
    assert last["replaced"] is None


@pytest.mark.parametrize(
    ("detector", "reason"),
    [
        (ColourDetector(shift=8), "its mAP is"),
        (ColourDetector(labels=("car",)), "its mAP is 0.5000, below 1.0000"),
        (ColourDetector(fails=True), "failed on 1 images"),
    ],
)
def test_a_worse_or_failing_detector_is_not_promoted(
    folder: Path, promoter: Promoter, detector: ColourDetector, reason: str
) -> None:
    current = evaluated(folder, ColourDetector(), "current")
    with pytest.raises(NotPromoted, match=reason):
        promoter(evaluated(folder, detector, "new"), current)
    assert promoter.installed == 0
    assert not promoter.record.exists()


def test_data_without_boxes_promote_no_detector(folder: Path, promoter: Promoter) -> None:
    data = read_set(folder, "val")
    empty = DetectionSet(data.names, data.records[-1:])
    with pytest.raises(NotPromoted, match="no boxes to find"):
        promoter(evaluated(folder, ColourDetector(), "new", empty), None)
