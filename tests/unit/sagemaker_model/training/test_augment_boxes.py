"""Boxes follow flips, crops and changes of scale."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sagemaker_model.imaging.letterbox import GREY
from sagemaker_model.training.augment_boxes import (
    BoxedImage,
    augment,
    crop,
    flip,
    letterbox,
    random_crop,
)

SIDES = st.integers(3, 90)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def samples(draw: st.DrawFn) -> BoxedImage:
    """A black image in which each box is filled with white pixels. Box i has the label i."""
    width, height = draw(SIDES), draw(SIDES)
    image = np.zeros((height, width, 3), np.uint8)
    boxes = []
    for _ in range(draw(st.integers(0, 3))):
        x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        boxes.append((x, y, draw(st.integers(x + 1, width)), draw(st.integers(y + 1, height))))
        image[y : boxes[-1][3], x : boxes[-1][2]] = 255
    return BoxedImage(image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)))


def assert_valid(sample: BoxedImage) -> None:
    height, width = sample.image.shape[:2]
    assert len(sample.boxes) == len(sample.labels)
    assert (sample.boxes[:, :2] < sample.boxes[:, 2:]).all()
    assert (sample.boxes >= 0).all()
    assert (sample.boxes <= np.array((width, height, width, height))).all()


def single(sample: BoxedImage, number: int) -> BoxedImage:
    """The sample with one of its boxes, and with this box alone drawn."""
    image = np.zeros_like(sample.image)
    x0, y0, x1, y1 = sample.boxes[number].astype(int)
    image[y0:y1, x0:x1] = 255
    return BoxedImage(image, sample.boxes[number : number + 1], sample.labels[number : number + 1])


def assert_surrounds_its_pixels(sample: BoxedImage) -> None:
    """The box surrounds the centres of all pixels that are mostly white; scaling blurs edges by half a pixel."""
    assert_valid(sample)
    rows, columns = np.nonzero(sample.image[..., 0] > 192)
    for x0, y0, x1, y1 in sample.boxes:
        if len(rows):
            assert x0 - 0.5 <= columns.min() + 0.5 <= columns.max() + 0.5 <= x1 + 0.5
            assert y0 - 0.5 <= rows.min() + 0.5 <= rows.max() + 0.5 <= y1 + 0.5


@given(samples())
def test_a_flip_twice_is_the_identity(sample: BoxedImage) -> None:
    twice = flip(flip(sample))
    np.testing.assert_array_equal(twice.image, sample.image)
    np.testing.assert_array_equal(twice.boxes, sample.boxes)


@given(samples())
def test_a_flipped_box_holds_the_same_pixels(sample: BoxedImage) -> None:
    flipped = flip(sample)
    assert_valid(flipped)
    for before, after in zip(sample.boxes.astype(int), flipped.boxes.astype(int), strict=True):
        pixels = sample.image[before[1] : before[3], before[0] : before[2]]
        np.testing.assert_array_equal(flipped.image[after[1] : after[3], after[0] : after[2]], pixels[:, ::-1])


def test_the_flip_of_an_older_system_turned_boxes_inside_out() -> None:
    boxes = np.array([[10, 5, 30, 20]], np.float32)
    sample = BoxedImage(np.zeros((40, 100, 3), np.uint8), boxes, np.zeros(1, np.int64))
    old = boxes.copy()
    old[:, [0, 2]] = 100 - old[:, [0, 2]]  # XMin and XMax each mirrored in place
    assert (old[:, 0] > old[:, 2]).all()
    np.testing.assert_array_equal(flip(sample).boxes, [[70, 5, 90, 20]])


@given(samples(), SEEDS)
def test_a_crop_keeps_boxes_around_the_pixels_that_it_shows(sample: BoxedImage, seed: int) -> None:
    for number in range(len(sample.boxes)):
        one = single(sample, number)
        cropped = random_crop(one, np.random.default_rng(seed))
        assert_surrounds_its_pixels(cropped)
        for x0, y0, x1, y1 in cropped.boxes.astype(int):
            assert (cropped.image[y0:y1, x0:x1] == 255).all()


def test_a_crop_leaves_out_boxes_of_which_it_shows_little() -> None:
    boxes = np.array([[0, 0, 10, 10], [8, 0, 20, 10], [30, 30, 40, 40]], np.float32)
    sample = BoxedImage(np.zeros((50, 50, 3), np.uint8), boxes, np.arange(3))
    cropped = crop(sample, (8, 0, 25, 50))
    assert cropped.labels.tolist() == [1]
    assert cropped.boxes.tolist() == [[0, 0, 12, 10]]
    assert cropped.image.shape == (50, 17, 3)


@given(samples(), st.integers(8, 120), st.floats(0, 1), st.floats(0, 1))
def test_a_letterbox_keeps_boxes_around_their_pixels(sample: BoxedImage, side: int, left: float, above: float) -> None:
    for number in range(len(sample.boxes)):
        square, placement = letterbox(single(sample, number), side, at=(left, above))
        assert square.image.shape == (side, side, 3)
        assert_surrounds_its_pixels(square)
        if len(square.boxes):
            back = placement.to_image(square.boxes)
            np.testing.assert_allclose(back, sample.boxes[number : number + 1], atol=1e-3)


def test_a_letterbox_pads_with_grey_and_keeps_the_aspect_ratio() -> None:
    sample = BoxedImage(np.zeros((20, 40, 3), np.uint8), np.array([[0, 0, 40, 20]], np.float32), np.zeros(1, np.int64))
    square, placement = letterbox(sample, 80)
    assert square.boxes.tolist() == [[0, 20, 80, 60]]
    assert placement.scale == (2, 2)
    assert (square.image[:20] == GREY).all()
    assert (square.image[20:60] == 0).all()


@settings(deadline=None)
@given(samples(), st.integers(16, 96), SEEDS)
def test_random_samples_have_valid_boxes_and_are_reproducible(sample: BoxedImage, side: int, seed: int) -> None:
    one, other = (augment(sample, side, np.random.default_rng(seed)) for _ in range(2))
    assert one.image.shape == (side, side, 3)
    assert_valid(one)
    assert set(one.labels) <= set(sample.labels)
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.boxes, other.boxes)
