from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.output import Output
from sagemaker_model.imaging.geometry import Layout, plan

BOX = (60, 40, 160, 240)
"""A subject of 100 x 200 pixels in an image of 400 x 300."""


def planned(box: tuple[int, int, int, int] = BOX, image: tuple[int, int] = (400, 300), **options: Any) -> Layout:
    alpha = np.zeros(image[::-1], np.uint8)
    alpha[box[1] : box[3], box[0] : box[2]] = 255
    return plan(Output.from_json(options), alpha)


@pytest.mark.parametrize(
    ("options", "size", "place"),
    [
        # the whole image fits into a canvas in pixels
        ({"canvas": "800x600"}, (800, 600), (0, 0, 800, 600)),
        ({"canvas": "800x800"}, (800, 800), (0, 100, 800, 700)),
        ({"canvas": "200x300"}, (200, 300), (0, 75, 200, 225)),
        # the subject fits into it
        ({"canvas": "1000x1000", "padding": "0"}, (1000, 1000), (250, 0, 750, 1000)),
        ({"canvas": "1000x1000", "padding": "10%"}, (1000, 1000), (300, 100, 700, 900)),
        ({"canvas": "1000x1000", "padding": "50px"}, (1000, 1000), (275, 50, 725, 950)),
        ({"canvas": "1000x500", "padding": "10% 30%"}, (1000, 500), (400, 50, 600, 450)),
        ({"canvas": "1000x1000", "padding": "0 0 200px 40%"}, (1000, 1000), (500, 0, 900, 800)),
        ({"canvas": "1000x1000", "padding": "10%", "position": "0% 50%"}, (1000, 1000), (100, 100, 500, 900)),
        ({"canvas": "1000x1000", "crop": "true"}, (1000, 1000), (250, 0, 750, 1000)),
        ({"canvas": "1200x1200", "crop": "50px"}, (1200, 1200), (400, 200, 800, 1000)),
        ({"canvas": "1000x1000", "scale": "50%"}, (1000, 1000), (375, 250, 625, 750)),
        ({"canvas": "1000x1000", "scale": "50%", "position": "100%"}, (1000, 1000), (750, 500, 1000, 1000)),
        ({"canvas": "800x800", "position": "100% 0%"}, (800, 800), (600, 0, 800, 400)),
        # an aspect ratio extends the image or the subject, without a change of scale
        ({"canvas": "1:1"}, (400, 400), (0, 50, 400, 350)),
        ({"canvas": "4:3"}, (400, 300), (0, 0, 400, 300)),
        ({"canvas": "1:2"}, (400, 800), (0, 250, 400, 550)),
        ({"canvas": "1:1", "crop": "true"}, (200, 200), (50, 0, 150, 200)),
        ({"canvas": "1:1", "padding": "10%"}, (250, 250), (75, 25, 175, 225)),
        ({"canvas": "1:1", "padding": "20px"}, (240, 240), (70, 20, 170, 220)),
        ({"canvas": "4:1", "padding": "0", "position": "0%"}, (800, 200), (0, 0, 100, 200)),
        ({"padding": "0"}, (100, 200), (0, 0, 100, 200)),
        ({"padding": "25%"}, (200, 400), (50, 100, 150, 300)),
        ({"padding": "10px 0 0 25%"}, (134, 210), (34, 10, 134, 210)),
        # an outline belongs to the subject
        ({"outline": "5px"}, (400, 300), (0, 0, 400, 300)),
        ({"outline": "5px", "crop": "true"}, (110, 210), (5, 5, 105, 205)),
        ({"outline": "5%", "crop": "true"}, (120, 220), (10, 10, 110, 210)),
        ({"outline": "10px", "canvas": "1000x1020", "padding": "0"}, (1000, 1020), (250, 10, 750, 1010)),
        ({"outline": "5%", "canvas": "1100x1100", "padding": "0"}, (1100, 1100), (300, 50, 800, 1050)),
        ({"outline": "5%", "canvas": "1:1", "padding": "0"}, (220, 220), (60, 10, 160, 210)),
        ({"outline": "50px", "canvas": "1000x1000", "scale": "50%"}, (1000, 1000), (400, 300, 600, 700)),
    ],
)
def test_the_layout_of_a_100_by_200_subject_in_a_400_by_300_image(
    options: dict[str, Any], size: tuple[int, int], place: tuple[int, int, int, int]
) -> None:
    layout = planned(**options)
    assert layout.size == size
    assert np.abs(np.subtract(layout.place, place)).max() <= (1 if layout.scale != 1 else 0.5)


def test_a_size_limits_the_pixels_of_a_canvas_with_an_aspect_ratio() -> None:
    layout = planned((0, 0, 3000, 2000), (4000, 3000), canvas="1:1", padding="10%", size="preview")
    assert layout.full_size == (3750, 3750)
    assert layout.size == (500, 500)
    assert np.abs(np.subtract(layout.place, (50, 117, 450, 383))).max() <= 1


@pytest.mark.parametrize("options", [{"canvas": "512x300"}, {"canvas": "512x300", "padding": "10%", "outline": "3%"}])
def test_an_image_without_a_subject_fits_into_the_canvas_as_a_whole(options: dict[str, Any]) -> None:
    layout = planned((0, 0, 0, 0), **options)
    assert layout.size == (512, 300)
    assert layout.place == (56, 0, 456, 300)


def test_the_scale_of_a_layout_is_that_of_the_subject() -> None:
    assert planned(canvas="1000x1000", padding="0").scale == 5
    assert planned(canvas="100x100", padding="0").scale == 0.5
    assert planned(canvas="1:1", padding="10%").scale == 1


SIDES = st.integers(1, 120)


@given(
    st.tuples(SIDES, SIDES),
    st.tuples(*[st.floats(0, 0.999)] * 4),
    st.tuples(st.integers(50, 2000), st.integers(50, 2000)),
    st.tuples(*[st.integers(0, 44)] * 4),
    st.integers(0, 2),
)
def test_a_subject_fills_the_room_inside_the_padding_of_any_canvas(
    image: tuple[int, int],
    corners: tuple[float, float, float, float],
    canvas: tuple[int, int],
    padding: tuple[int, int, int, int],
    outline: int,
) -> None:
    (x0, x1), (y0, y1) = (
        sorted((int(first * side), int(second * side)))
        for first, second, side in zip(corners[:2], corners[2:], image, strict=True)
    )
    box = x0, y0, x1 + 1, y1 + 1
    options: dict[str, Any] = {"canvas": "{}x{}".format(*canvas), "padding": " ".join(f"{side}%" for side in padding)}
    layout = planned(box, image, **options, outline=f"{outline}px")
    assert layout.size == canvas == layout.full_size
    assert layout.window == box
    top, right, bottom, left = (share / 100 for share in padding)
    room = (
        left * canvas[0] + outline,
        top * canvas[1] + outline,
        (1 - right) * canvas[0] - outline,
        (1 - bottom) * canvas[1] - outline,
    )
    place = layout.place
    assert all(place[axis] >= math.floor(room[axis]) for axis in (0, 1))
    assert all(place[axis] <= math.ceil(room[axis]) + 1 for axis in (2, 3))
    fills = [(place[axis + 2] - place[axis]) / (room[axis + 2] - room[axis]) for axis in (0, 1)]
    slack = [1.01 / (room[axis + 2] - room[axis]) for axis in (0, 1)]
    assert any(fill >= 1 - loose for fill, loose in zip(fills, slack, strict=True)), "one side reaches the padding"
    for axis in (0, 1):
        assert abs((place[axis] + place[axis + 2]) - (room[axis] + room[axis + 2])) <= 2, "centred in the room"


@given(st.tuples(SIDES, SIDES), st.integers(1, 9), st.integers(1, 9), st.integers(0, 44))
def test_an_aspect_ratio_neither_scales_nor_cuts_the_image(
    image: tuple[int, int], across: int, down: int, padding: int
) -> None:
    layout = planned((0, 0, *image), image, canvas=f"{across}:{down}", padding=f"{padding}%")
    width, height = layout.size
    assert abs(width - height * across / down) <= 0.5 * max(1, across / down) + 1
    place = layout.place
    assert (place[2] - place[0], place[3] - place[1]) == image
    assert width * (100 - 2 * padding) >= 100 * image[0]
    assert height * (100 - 2 * padding) >= 100 * image[1]


@pytest.mark.parametrize("name", ["crop", "padding"])
def test_margins_and_padding_of_zero_are_one_result(name: str) -> None:
    zero: dict[str, Any] = {name: "0"}
    assert planned(**zero) == planned(crop="true")
