"""Tests of the detectors `faces` and `people` with their real weights."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sagemaker_model.detectors.base import Detections, Detector
from sagemaker_model.detectors.blaze import iou
from sagemaker_model.detectors.faces import Faces
from sagemaker_model.detectors.people import People, body_matrix, mask_box
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized
from sagemaker_model.weights.store import InvalidWeights, NotInstalled

ASTRONAUT = Path(__file__).parents[4] / "samples" / "default" / "astronaut.png"


@pytest.fixture(scope="module")
def astronaut() -> Pixels:
    return np.asarray(Image.open(ASTRONAUT).convert("RGB"))


@pytest.fixture(scope="module")
def two(astronaut: Pixels) -> Pixels:
    """Two people: the astronaut, and her mirror image beside her."""
    return np.ascontiguousarray(np.hstack([astronaut, astronaut[:, ::-1]]))


@pytest.fixture(scope="module")
def faces(weights_dir: Path) -> Faces:
    detector = Faces()
    detector.setup("cpu", weights_dir)
    return detector


@pytest.fixture(scope="module")
def people(weights_dir: Path) -> People:
    detector = People()
    detector.setup("cpu", weights_dir)
    return detector


@pytest.fixture(params=["faces", "people"])
def detector(request: pytest.FixtureRequest) -> Detector:
    found: Detector = request.getfixturevalue(request.param)
    return found


def assert_valid(found: Detections, rgb: Pixels) -> None:
    height, width = rgb.shape[:2]
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.boxes.shape == (len(found.scores), 4)
    assert len(found.labels) == len(found.scores)
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= [width, height]).all()
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert (np.diff(found.scores) <= 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (7, 2000), (90, 31), (300, 301)], ids=str)
def test_an_image_of_any_size_gives_valid_detections(detector: Detector, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for rgb in (noise, np.full_like(noise, 128)):
        found = detector.detect(rgb, (), 0.01, masks=True)
        assert_valid(found, rgb)
        assert len(found.masks) in (0, len(found.scores))


def test_a_grey_image_has_no_instances(detector: Detector) -> None:
    assert len(detector.detect(np.full((480, 640, 3), 128, np.uint8)).scores) == 0


def test_a_small_crop_of_a_person_gives_valid_detections(detector: Detector, astronaut: Pixels) -> None:
    for side in (3, 16, 60):
        rgb = resized(astronaut, (side, side))
        assert_valid(detector.detect(rgb, (), 0.01, masks=True), rgb)


def test_the_face_of_a_person_is_found_inside_the_persons_box(faces: Faces, people: People, astronaut: Pixels) -> None:
    (face,), (person,) = faces.detect(astronaut).boxes, people.detect(astronaut).boxes
    middle = (face[:2] + face[2:]) / 2
    assert (middle > person[:2]).all()
    assert (middle < person[2:]).all()
    assert middle[1] < (person[1] + person[3]) / 2


def test_two_people_are_two_faces_at_mirrored_positions(faces: Faces, two: Pixels) -> None:
    found = faces.detect(two)
    assert_valid(found, two)
    assert found.labels == ("face", "face")
    left, right = found.boxes[np.argsort(found.boxes[:, 0])]
    mirrored = np.array([[two.shape[1] - right[2], right[1], two.shape[1] - right[0], right[3]]], np.float32)
    assert iou(left[None], mirrored)[0, 0] > 0.8


def test_two_people_are_two_masks_that_do_not_overlap(people: People, two: Pixels) -> None:
    found = people.detect(two, masks=True)
    assert_valid(found, two)
    assert found.labels == ("person", "person")
    assert len(found.masks) == 2
    height, width = two.shape[:2]
    inside = [resized(mask.values, (width, height)) >= 0.5 for mask in found.masks if mask]
    assert not (inside[0] & inside[1]).sum() > 0.01 * inside[0].sum()
    for mask, box in zip(inside, found.boxes, strict=True):
        around = mask_box(mask.astype(np.float32))
        assert around is not None
        assert iou(around[None], box[None])[0, 0] > 0.9


def test_boxes_are_in_pixels_of_the_image(detector: Detector, astronaut: Pixels) -> None:
    height, width = astronaut.shape[:2]
    (box,) = detector.detect(astronaut).boxes
    (larger,) = detector.detect(resized(astronaut, (3 * width, 3 * height))).boxes
    assert iou(box[None] * 3, larger[None])[0, 0] > 0.8


def test_only_the_requested_label_is_searched(detector: Detector, astronaut: Pixels) -> None:
    assert detector.labels is not None
    (label,) = detector.labels
    assert detector.detect(astronaut, [label.upper()]).labels == (label,)
    assert detector.detect(astronaut, ["bicycle"]).labels == ()


def test_a_higher_confidence_drops_instances(detector: Detector, two: Pixels) -> None:
    scores = detector.detect(two).scores
    assert len(scores) == 2
    assert detector.detect(two, (), float(scores[0])).scores.tolist() == scores[scores >= scores[0]].tolist()
    assert len(detector.detect(two, (), 1.0).scores) == 0


def test_many_threads_get_the_same_detections(detector: Detector, astronaut: Pixels, two: Pixels) -> None:
    images = [astronaut, two, astronaut]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(detector.detect, images))
    for image, one in zip(images, found, strict=True):
        alone = detector.detect(image)
        np.testing.assert_array_equal(one.boxes, alone.boxes)
        np.testing.assert_array_equal(one.scores, alone.scores)


def test_missing_and_damaged_weights_raise_errors(tmp_path: Path, weights_dir: Path) -> None:
    for kind in (Faces, People):
        with pytest.raises(NotInstalled, match="maskdrop models pull"):
            kind().setup("cpu", tmp_path)
    (tmp_path / "face_detection_short_range.tflite").write_bytes(b"damaged")
    with pytest.raises(InvalidWeights):
        Faces().setup("cpu", tmp_path)


def test_the_square_of_a_body_is_upright() -> None:
    matrix = body_matrix(np.array([100, 100], np.float32), np.array([140, 100], np.float32))  # lies on its side
    assert matrix is not None
    centre, top = (matrix[:, :2] @ np.array(point) + matrix[:, 2] for point in ((99.5, 99.5), (139.5, 99.5)))
    np.testing.assert_allclose(centre, [127.5, 127.5], atol=1e-3)
    np.testing.assert_allclose(top[0], 127.5, atol=1e-3)
    assert top[1] < centre[1]


def test_a_body_without_a_size_has_no_square() -> None:
    assert body_matrix(np.array([3, 3], np.float32), np.array([3, 3], np.float32)) is None
