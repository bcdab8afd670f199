from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sagemaker_model.detectors.blaze import Candidates, anchors, iou, suppressed, tiles, to_detections, wanted
from sagemaker_model.detectors.faces import FULL, SHORT
from sagemaker_model.detectors.people import POSE


def _candidates(*rows: tuple[float, float, float, float, float]) -> Candidates:
    values = np.array(rows, np.float32).reshape(-1, 5)
    return Candidates(values[:, :4], values[:, 4], values[:, None, :2])


def test_the_anchors_are_as_many_as_the_outputs_of_the_networks() -> None:
    assert [len(anchors(layout)) for layout in (SHORT, FULL, POSE)] == [896, 2304, 2254]


def test_the_anchors_are_at_the_middle_of_their_cells() -> None:
    centres = anchors(FULL).reshape(48, 48, 2)
    assert centres[0, 0].tolist() == [2, 2]
    assert centres[0, -1].tolist() == [190, 2]


def test_overlapping_candidates_become_their_mean_weighted_by_score() -> None:
    found = suppressed(_candidates((0, 0, 10, 10, 0.75), (1, 0, 11, 10, 0.25), (50, 50, 60, 60, 0.2)))
    np.testing.assert_allclose(found.boxes, [[0.25, 0.0, 10.25, 10.0], [50.0, 50.0, 60.0, 60.0]])
    np.testing.assert_allclose(found.scores, [0.75, 0.2])


def test_a_candidate_without_area_does_not_stop_the_suppression() -> None:
    assert len(suppressed(_candidates((5, 5, 5, 5, 0.9), (5, 5, 5, 5, 0.8))).scores) == 2
    assert len(suppressed(_candidates()).scores) == 0


def test_the_iou_of_boxes_is_the_shared_part_of_their_union() -> None:
    boxes = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [5, 5, 6, 6]], np.float32)
    np.testing.assert_allclose(iou(boxes, boxes), [[1.0, 1 / 3, 0.0], [1 / 3, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (480, 640), (5000, 500), (2, 10_000), (289, 1), (6000, 6000)]
)
def test_tiles_cover_the_whole_image_and_are_few(width: int, height: int) -> None:
    boxes = np.array(tiles(width, height))
    assert len(boxes) <= 16
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(start, end) for start, end in boxes[:, [axis, axis + 2]].tolist()})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(following[0] <= span[1] for span, following in pairwise(spans))


def test_small_images_have_no_tiles() -> None:
    assert tiles(288, 100) == []


def test_instances_are_clipped_to_the_image_and_those_outside_are_dropped() -> None:
    boxes = np.array([[-5, -5, 5, 5], [20, 0, 30, 9], [1, 1, 9, 9]], np.float32)
    scores = np.array([0.5, 0.9, 0.8], np.float32)
    found = to_detections("face", boxes, scores, np.zeros((10, 10, 3), np.uint8), 0.5)
    assert found.boxes.tolist() == [[1, 1, 9, 9], [0, 0, 5, 5]]
    assert found.labels == ("face", "face")


def test_labels_are_wanted_in_any_letter_case() -> None:
    assert wanted("face", ())
    assert wanted("face", ["Person", "FACE"])
    assert not wanted("face", ["person"])
