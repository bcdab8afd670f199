"""COCO's measures: equal to pycocotools, and free of the three errors of the report of an older system."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sagemaker_model.data.detection import DetectionRecord, read_set
from sagemaker_model.data.records import InvalidData
from sagemaker_model.detectors.base import Detections
from sagemaker_model.evaluation.detection import (
    Counts,
    DetectionScores,
    Found,
    coco_scores,
    count_matches,
    pairwise_ious,
    total,
)

SHARED = Path(__file__).parents[5] / "shared" / "data" / "detection" / "instances.json"

FIGURES = (
    "map", "map50", "map75", "map_small", "map_medium", "map_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""The order of pycocotools."""


def record(boxes: Any, labels: Sequence[int] | None = None, crowd: Sequence[bool] | None = None) -> DetectionRecord:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return DetectionRecord(
        Path("a.jpg"), 400, 400, array,
        np.array(labels if labels is not None else [0] * len(array), np.int64),
        np.array(crowd if crowd is not None else [False] * len(array), np.bool_),
    )  # fmt: skip


def found(boxes: Any, scores: Sequence[float], labels: Sequence[int] | None = None) -> Found:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Found(array, np.array(scores, np.float32), np.array(labels or [0] * len(array), np.int64))


def figures(scores: DetectionScores) -> list[float]:
    return [getattr(scores, name) for name in FIGURES]


def pycocotools_figures(truths: Sequence[DetectionRecord], finds: Sequence[Found], classes: int) -> NDArray[np.float64]:
    """The twelve figures of pycocotools; NaN instead of its -1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for id_, (truth, one) in enumerate(zip(truths, finds, strict=True), 1):
        images.append({"id": id_, "width": truth.width, "height": truth.height})
        for at, box in enumerate(truth.boxes.astype(float)):
            sides = box[2:] - box[:2]
            area = sides.prod() if truth.areas is None else truth.areas[at]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": id_,
                    "category_id": int(truth.labels[at]) + 1,
                    "bbox": [*box[:2].tolist(), *sides.tolist()],
                    "area": float(area),
                    "iscrowd": int(truth.crowd[at]),
                }
            )
        for box, score, label in zip(one.boxes.astype(float), one.scores, one.labels, strict=True):
            bbox = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
            results.append({"image_id": id_, "category_id": int(label) + 1, "bbox": bbox, "score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        categories = [{"id": label + 1, "name": str(label)} for label in range(classes)]
        coco.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats)


def random_case(seed: int, classes: int = 3) -> tuple[list[DetectionRecord], list[Found]]:
    """Images with 0 to 8 true boxes of all sizes, crowds among them, and detections: shifted true boxes, others, equal
    scores, wrong labels, and in some images more than 100 of them."""
    random = np.random.default_rng(seed)

    def boxes(count: int) -> NDArray[np.float32]:
        corners = random.uniform(0, 250, (count, 2))
        return np.hstack((corners, corners + np.exp(random.uniform(1, 5, (count, 2))))).astype(np.float32)

    truths, finds = [], []
    for _ in range(6):
        count = int(random.integers(0, 9))
        truth = record(boxes(count), random.integers(0, classes, count).tolist(), (random.random(count) < 0.2).tolist())
        if random.random() < 0.5:
            truth = replace(truth, areas=(random.uniform(0.3, 1, count) * 3000).astype(np.float32))
        kept = random.random(count) < 0.8
        shifted = truth.boxes[kept] + random.normal(0, 3, (int(kept.sum()), 4)).astype(np.float32)
        shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
        other = boxes(150 if random.random() < 0.1 else int(random.integers(0, 6)))
        both = np.vstack((shifted, truth.boxes[kept][:1], other))
        labels = np.append(truth.labels[kept], random.integers(0, classes, len(both) - int(kept.sum())))
        truths.append(truth)
        finds.append(found(both, np.round(random.random(len(both)), 1).tolist(), labels.tolist()))
    return truths, finds


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_the_figures_equal_those_of_pycocotools(seed: int) -> None:
    truths, finds = random_case(seed)
    scores = coco_scores(truths, finds, ("a", "b", "c"))
    np.testing.assert_allclose(figures(scores), pycocotools_figures(truths, finds, 3), atol=1e-6)


@pytest.mark.skipif(not SHARED.exists(), reason="the folder shared/data/detection is missing")
def test_the_figures_equal_those_of_pycocotools_on_photos() -> None:
    data, random = read_set(SHARED), np.random.default_rng(1)
    finds = []
    for truth in data.records:
        kept = random.random(len(truth.boxes)) < 0.8
        boxes = truth.boxes[kept] + random.normal(0, 4, (int(kept.sum()), 1)).astype(np.float32)
        finds.append(Found(boxes, random.random(len(boxes)).astype(np.float32), truth.labels[kept]))
    scores = coco_scores(data.records, finds, data.names)
    np.testing.assert_allclose(figures(scores), pycocotools_figures(data.records, finds, len(data.names)), atol=1e-6)
    assert 0.2 < scores.map < 0.9


def test_a_class_without_true_boxes_does_not_count() -> None:
    scores = coco_scores([record([[0, 0, 40, 40]])], [found([[0, 0, 40, 40], [5, 5, 9, 9]], [0.9, 0.8], [0, 1])], "ab")
    assert scores.map == 1
    assert [one.boxes for one in scores.classes] == [1, 0]
    assert np.isnan(scores.classes[1].ap)


def test_nothing_found_is_zero_and_nothing_to_find_is_not_a_number() -> None:
    nothing = found([], [])
    assert coco_scores([record([[0, 0, 40, 40]])], [nothing], "a").map == 0
    assert np.isnan(coco_scores([record([])], [nothing], "a").map)


def test_a_detection_on_a_crowd_is_neither_correct_nor_extra() -> None:
    truth = record([[0, 0, 200, 100], [300, 0, 340, 40]], crowd=[True, False])
    finds = found([[10, 10, 50, 50], [60, 10, 90, 50], [300, 0, 340, 40]], [0.9, 0.8, 0.7])
    assert count_matches([truth], [finds], "a", iou=0.5, score=0.0)["a"] == Counts(1, 0, 0)
    assert coco_scores([truth], [finds], "a").map == 1


def test_matches_are_counted_by_class_from_the_score_on() -> None:
    truth = record([[0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40]], [0, 0, 1])
    finds = found(
        [[0, 0, 40, 40], [100, 0, 140, 40], [300, 0, 340, 40], [0, 0, 40, 40]], [0.9, 0.2, 0.6, 0.8], [0, 0, 1, 0]
    )
    counts = count_matches([truth], [finds], "ab", iou=0.5, score=0.5)
    assert counts == {"a": Counts(correct=1, missed=1, extra=1), "b": Counts(correct=0, missed=1, extra=1)}
    assert total(counts) == Counts(1, 2, 2)
    assert (total(counts).precision, total(counts).recall) == (1 / 3, 1 / 3)


def test_labels_of_a_detector_are_matched_in_any_letter_case_and_others_are_left_out() -> None:
    boxes = np.array([[0, 0, 4, 4], [1, 1, 4, 4], [2, 2, 4, 4]], np.float32)
    detections = Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), ("Person", "zebra", "CAR"))
    one = Found.of(detections, ("car", "person"))
    assert one.labels.tolist() == [1, 0]
    assert one.boxes[:, 0].tolist() == [0, 2]


def test_another_number_of_images_is_refused() -> None:
    with pytest.raises(InvalidData, match="0 images have detections; the data set has 1"):
        coco_scores([record([])], [], "a")


# The report of an older system (airplanes of Open Images) had three errors. Each test has its formula.


def old_iou(one: Sequence[float], other: Sequence[float]) -> float:
    """IoU of inclusive integer pixels, which the report applied to coordinates of 0..1."""
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]) + 1)
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]) + 1)
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def iou(one: Sequence[float], other: Sequence[float]) -> float:
    first, second = (np.array([box], np.float32) for box in (one, other))
    return float(pairwise_ious(first, second, np.zeros(1, np.bool_))[0, 0])


def test_boxes_that_do_not_touch_have_no_iou_on_coordinates_of_0_to_1() -> None:
    one, other = (0.0, 0.0, 0.2, 0.2), (0.8, 0.8, 1.0, 1.0)
    assert iou(one, other) == 0
    assert old_iou(one, other) > 0.05


def test_the_iou_does_not_depend_on_the_unit() -> None:
    one, other = np.array((0.0, 0.0, 0.5, 0.5)), np.array((0.25, 0.0, 0.75, 0.5))
    assert iou(one.tolist(), other.tolist()) == pytest.approx(1 / 3)
    assert iou((one * 640).tolist(), (other * 640).tolist()) == pytest.approx(1 / 3)
    assert old_iou(one.tolist(), other.tolist()) > 0.6
    assert old_iou((one * 640).tolist(), (other * 640).tolist()) == pytest.approx(1 / 3, abs=0.01)


def test_each_box_of_an_image_counts_once() -> None:
    boxes = [[0, 0, 40, 40], [100, 0, 140, 40], [200, 0, 240, 40]]
    counts = count_matches([record(boxes)], [found(boxes, [0.9, 0.8, 0.7])], "a", iou=0.5, score=0)
    assert counts["a"] == Counts(correct=3, missed=0, extra=0)
    # The report merged true and detected boxes by image, which pairs each with all: three perfect boxes gave nine rows.
    merged = [iou(one, other) for one in boxes for other in boxes]
    assert len(merged) == 9
    assert np.mean(merged) == pytest.approx(1 / 3)


def test_a_true_box_without_a_detection_lowers_average_precision() -> None:
    truth, one = record([[0, 0, 40, 40], [100, 0, 140, 40]]), found([[0, 0, 40, 40]], [0.9])
    assert coco_scores([truth], [one], "a").map50 == pytest.approx(51 / 101)
    # The report took the recall of the matched true boxes alone, so a detector that found one of two was perfect.
    correct = [iou([0, 0, 40, 40], truth.boxes[0].tolist()) >= 0.5]
    old_recall, old_precision = np.cumsum(correct) / len(correct), np.cumsum(correct) / np.arange(1, len(correct) + 1)
    assert np.trapezoid([1.0, *old_precision], [0.0, *old_recall]) == 1
