from __future__ import annotations

import numpy as np

from sagemaker_model.detectors.suppression import DETECTIONS_MAX, suppress

SIZE = (100, 80)


def chosen(boxes: list[list[float]], scores: list[list[float]], min_score: float = 0.3) -> list[tuple[int, float]]:
    """Returns class and score of the chosen boxes."""
    found = suppress(np.array(boxes, np.float32), np.array(scores, np.float32), min_score, SIZE)
    assert (np.diff(found.scores) <= 0).all()
    return [(int(label), round(float(score), 3)) for label, score in zip(found.classes, found.scores, strict=True)]


def test_of_overlapping_boxes_of_a_class_the_one_with_the_highest_score_is_kept() -> None:
    boxes: list[list[float]] = [[10, 10, 50, 50], [12, 10, 52, 50], [60, 10, 90, 50]]
    assert chosen(boxes, [[0.5], [0.9], [0.4]]) == [(0, 0.9), (0, 0.4)]


def test_boxes_of_two_classes_do_not_suppress_each_other() -> None:
    assert chosen([[10, 10, 50, 50], [10, 10, 50, 50]], [[0.8, 0], [0, 0.7]]) == [(0, 0.8), (1, 0.7)]


def test_boxes_with_an_iou_below_the_limit_are_both_kept() -> None:
    # Intersection 30 x 40 of two boxes of 40 x 40: an IoU of 0.6 / 1.0 is 1200 / 2000.
    assert len(chosen([[0, 0, 40, 40], [10, 0, 50, 40]], [[0.8], [0.7]])) == 2
    assert len(chosen([[0, 0, 40, 40], [9, 0, 49, 40]], [[0.8], [0.7]])) == 1


def test_a_box_may_be_found_for_two_classes() -> None:
    assert chosen([[10, 10, 50, 50]], [[0.8, 0.6]]) == [(0, 0.8), (1, 0.6)]


def test_a_score_equal_to_the_minimum_is_kept_and_one_below_is_not() -> None:
    assert chosen([[0, 0, 9, 9], [20, 20, 40, 40]], [[0.5], [0.25]], 0.5) == [(0, 0.5)]
    assert chosen([[0, 0, 9, 9]], [[0.1]]) == []


def test_boxes_are_clipped_to_the_image_and_those_outside_are_left_out() -> None:
    boxes = np.array([[-10, 20, 30, 200], [110, 10, 130, 30], [30, 30, 30, 50]], np.float32)
    found = suppress(boxes, np.full((3, 1), 0.9, np.float32), 0.3, SIZE)
    assert found.boxes.tolist() == [[0, 20, 30, 80]]
    assert found.boxes.dtype == found.scores.dtype == np.float32


def test_the_number_of_detections_is_limited_to_those_with_the_highest_scores() -> None:
    x = np.arange(150, dtype=np.float32) * 10
    boxes = np.stack((x, x * 0, x + 8, x * 0 + 8), 1)
    scores = np.linspace(0.4, 0.9, 150, dtype=np.float32)[:, None]
    found = suppress(boxes, scores, 0.3, (2000, 80))
    assert len(found.scores) == DETECTIONS_MAX
    assert found.scores.min() == scores[50, 0]
