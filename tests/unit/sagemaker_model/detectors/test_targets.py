from __future__ import annotations

import numpy as np
import pytest

from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import Prompt, prompts_from_json
from sagemaker_model.detectors.targets import INSTANCES_MAX, Targets, find_targets, union, without
from sagemaker_model.engines.base import Alpha
from tests.unit.sagemaker_model.detectors.fake_detector import FakeDetector

IMAGE = np.zeros((100, 200, 3), np.uint8)
LEFT, RIGHT = (10.0, 10.0, 60.0, 60.0), (120.0, 20.0, 190.0, 95.0)
TWO_FACES = FakeDetector((("face", 0.9, LEFT), ("face", 0.6, RIGHT)))


def targets_of(prompt: object, detector: FakeDetector = TWO_FACES, *, masks: bool = False) -> Targets:
    return find_targets(IMAGE, prompts_from_json(prompt), detector, masks=masks)


def boxes(prompt: object) -> list[object]:
    return [target.prompt.box for target in targets_of(prompt).keep]


def test_a_label_becomes_one_target_for_each_instance_with_its_score() -> None:
    found = targets_of({"label": "Face"})
    assert [(one.prompt.box, one.label, round(one.score or 0, 3)) for one in found.keep] == [
        (LEFT, "face", 0.9),
        (RIGHT, "face", 0.6),
    ]


def test_the_largest_instance_is_selected_whatever_its_score() -> None:
    assert boxes({"label": "face", "select": "largest"}) == [RIGHT]


@pytest.mark.parametrize(("percent", "expected"), [(0, [LEFT, RIGHT]), (60, [LEFT, RIGHT]), (61, [LEFT]), (99, [])])
def test_min_confidence_is_a_percentage(percent: float, expected: list[object]) -> None:
    detector = FakeDetector((("face", 0.9, LEFT), ("face", 0.601, RIGHT)))
    found = targets_of({"label": "face", "min_confidence": percent}, detector)
    assert [target.prompt.box for target in found.keep] == expected


@pytest.mark.parametrize(
    ("points", "labels", "expected"),
    [
        ([[30, 30]], [1], [LEFT]),
        ([[150, 50]], [1], [RIGHT]),
        ([[30, 30], [150, 50]], [1, 1], [LEFT, RIGHT]),
        ([[30, 30]], [0], [RIGHT]),
        ([[30, 30], [31, 31]], [1, 0], []),
        ([[90, 90]], [1], []),
    ],
)
def test_points_select_the_instances_that_contain_them(
    points: list[list[int]], labels: list[int], expected: list[object]
) -> None:
    assert boxes({"label": "face", "points": points, "labels": labels}) == expected


def test_a_label_without_an_instance_is_a_warning_and_no_error() -> None:
    found = targets_of({"label": "person"})
    assert (found.keep, found.prompted) == ((), True)
    assert [warning.split(":")[0] for warning in found.warnings] == ["label_not_found"]


def test_ignored_prompts_are_separate_targets() -> None:
    found = targets_of([{"box": [0, 0, 200, 100]}, {"label": "face", "mode": "ignore"}])
    assert [target.prompt.box for target in found.keep] == [(0.0, 0.0, 200.0, 100.0)]
    assert [target.prompt.box for target in found.ignore] == [LEFT, RIGHT]


def test_all_labels_of_one_confidence_are_one_call_and_its_price_counts_once() -> None:
    detector = FakeDetector((("face", 0.9, LEFT), ("person", 0.9, RIGHT)), cost_usd=0.001)
    found = targets_of([{"label": "face"}, {"label": "person"}, {"label": "face", "min_confidence": 50}], detector)
    assert [call[:2] for call in detector.calls] == [(("face", "person"), 0.0), (("face",), 0.5)]
    assert found.cost_usd == pytest.approx(0.002)


def test_prompts_with_many_confidences_are_one_call_and_each_keeps_its_own() -> None:
    detector = FakeDetector((("face", 0.9, LEFT), ("face", 0.6, RIGHT)), cost_usd=0.001)
    found = targets_of([{"label": "face", "min_confidence": percent} for percent in (50, 70, 95)], detector)
    assert [call[:2] for call in detector.calls] == [(("face",), 0.5)]
    assert [target.prompt.box for target in found.keep] == [LEFT, RIGHT, LEFT]
    assert found.cost_usd == pytest.approx(0.001)


def test_boxes_and_points_of_the_caller_call_no_detector() -> None:
    detector = FakeDetector()
    found = targets_of([{"box": [1, 2, 3, 4]}, {"points": [[5, 6]]}], detector)
    assert (len(found.keep), detector.calls) == (2, [])


def test_the_number_of_instances_is_bounded_and_reported() -> None:
    many = tuple(("face", 0.5, (float(x), 0.0, x + 1.0, 1.0)) for x in range(INSTANCES_MAX + 3))
    found = targets_of({"label": "face"}, FakeDetector(many))
    assert len(found.keep) == INSTANCES_MAX
    assert found.warnings[0].startswith("instances_omitted: found 67")


def test_the_number_of_instances_of_all_prompts_together_is_bounded() -> None:
    many = tuple(("face", 0.5, (float(x), 0.0, x + 1.0, 1.0)) for x in range(INSTANCES_MAX))
    with pytest.raises(InvalidPrompt, match="1,000 instances"):
        targets_of([{"label": "face", "min_confidence": percent} for percent in range(16)], FakeDetector(many))


def test_without_prompts_there_are_no_targets() -> None:
    detector = FakeDetector((("face", 0.9, LEFT),))
    found = find_targets(IMAGE, (), detector)
    assert (found.keep, found.ignore, found.prompted, detector.calls) == ((), (), False, [])


def test_masks_of_the_detector_are_requested_only_where_they_are_used() -> None:
    assert targets_of({"label": "face"}, masks=True).keep[0].mask is not None
    assert targets_of({"label": "face"}).keep[0].mask is None


def test_a_union_takes_the_larger_value_at_the_larger_size() -> None:
    small = Alpha(np.full((2, 2), 0.5, np.float32), ("a: one",))
    large = Alpha(np.pad(np.ones((2, 4), np.float32), ((0, 2), (0, 0))), ("a: one", "b: two"))
    both = union([small, large])
    assert both.values.shape == (4, 4)
    assert (both.values[:2] == 1).all()
    assert np.allclose(both.values[2:], 0.5)
    assert both.warnings == ("a: one", "b: two")


def test_what_is_ignored_is_removed() -> None:
    half = np.zeros((4, 4), np.float32)
    half[:, :2] = 1
    left = without(Alpha(np.ones((8, 8), np.float32)), Alpha(half))
    assert left.values[:, :3].max() == 0
    assert left.values[:, 5:].min() == 1


def test_one_prompt_must_be_kept() -> None:
    with pytest.raises(Exception, match="keep"):
        prompts_from_json({"label": "face", "mode": "ignore"})
    assert prompts_from_json({"label": "face"}) == (Prompt(label="face"),)
