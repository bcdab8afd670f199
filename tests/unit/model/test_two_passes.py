"""Two passes over made pictures: white on black is the subject, and the network is a threshold that keeps its crops."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from sagemaker_model.engines.two_passes import MARGIN, STRETCH, two_passes
from sagemaker_model.pixels import Pixels

SIDE = 64


class Look:
    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def __call__(self, picture: Pixels) -> np.ndarray:
        self.seen.append(picture.shape[1::-1])
        small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        return small[..., 0].astype(np.float32) / 255


def picture(box: tuple[int, int, int, int], size: tuple[int, int] = (600, 400)) -> Pixels:
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    x0, y0, x1, y1 = box
    rgb[y0:y1, x0:x1] = 255
    return rgb


def test_a_picture_without_people_is_looked_at_once() -> None:
    look = Look()
    assert not two_passes(picture((0, 0, 0, 0)), look).any()
    assert look.seen == [(600, 400)]


def test_the_second_pass_sees_the_padded_box_both_ways_round() -> None:
    look = Look()
    matte = two_passes(picture((200, 100, 400, 300)), look)
    padded = 200 * (1 + 2 * MARGIN)
    assert look.seen[1] == look.seen[2] == pytest.approx((padded, padded), abs=2 * 600 / SIDE)
    assert matte[200, 300] == 1
    assert matte[50, 100] == 0


def test_of_people_who_fill_the_picture_only_the_mirror_image_is_new() -> None:
    look = Look()
    matte = two_passes(picture((10, 10, 590, 390)), look)
    assert look.seen == [(600, 400), (600, 400)]
    assert matte[200, 300] == 1
    assert matte[2, 2] == 0


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((290, 50, 320, 350), (600, 400)),
        ((0, 50, 30, 350), (600, 400)),
        ((570, 50, 600, 350), (600, 400)),
        ((50, 190, 550, 215), (600, 400)),
        ((10, 5, 50, 995), (60, 1000)),
    ],
    ids=["standing", "at the left", "at the right", "lying", "in a strip"],
)
def test_nothing_is_squeezed_more_than_the_network_knows_as_far_as_the_picture_goes(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    look = Look()
    matte = two_passes(picture(box, size), look)
    width, height = look.seen[1]
    assert width == size[0] or height <= STRETCH * width + 2
    assert height == size[1] or width <= STRETCH * height + 2
    x0, y0, x1, y1 = box
    assert matte[(y0 + y1) // 2, (x0 + x1) // 2] == 1
    found = matte > 0.5
    truth = picture(box, size)[..., 0] > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.8
