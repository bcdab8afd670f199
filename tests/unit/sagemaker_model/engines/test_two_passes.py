"""Two passes over made images: white on black is the subject, and the network is a threshold that keeps its crops."""

from __future__ import annotations

import numpy as np
import pytest

from sagemaker_model.engines.two_passes import MARGIN, STRETCH, two_passes
from sagemaker_model.imaging.pixels import Pixels

SIDE = 64


class Look:
    def __init__(self) -> None:
        self.seen: list[Pixels] = []

    def __call__(self, seen: Pixels) -> np.ndarray:
        assert seen.shape == (SIDE, SIDE, 3)
        self.seen.append(seen)
        return seen[..., 0].astype(np.float32) / 255


def picture(box: tuple[int, int, int, int], size: tuple[int, int] = (600, 400)) -> Pixels:
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    x0, y0, x1, y1 = box
    rgb[y0:y1, x0:x1] = 255
    return rgb


def test_a_picture_without_people_is_looked_at_once() -> None:
    look = Look()
    assert not two_passes(picture((0, 0, 0, 0)), look, SIDE).any()
    assert len(look.seen) == 1


def test_the_second_pass_sees_the_padded_box_both_ways_round() -> None:
    look, person = Look(), picture((200, 100, 400, 300))
    person[100:150, 200:250] = 0  # no mirror image of itself
    matte = two_passes(person, look, SIDE)
    _, straight, mirrored = look.seen
    across, down = _shares(straight)
    assert across == pytest.approx(1 / (1 + 2 * MARGIN), abs=0.06)
    assert down == pytest.approx(1 / (1 + 2 * MARGIN), abs=0.06)
    assert np.array_equal(mirrored, straight[:, ::-1])
    assert not np.array_equal(mirrored, straight)
    assert matte[200, 300] == 1
    assert matte[50, 100] == 0


def test_of_people_who_fill_the_picture_only_the_mirror_image_is_new() -> None:
    look = Look()
    matte = two_passes(picture((10, 10, 590, 380)), look, SIDE)
    whole, mirrored = look.seen
    assert np.array_equal(mirrored, whole[:, ::-1])
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
    matte = two_passes(picture(box, size), look, SIDE)
    x0, y0, x1, y1 = box
    across, down = _shares(look.seen[-1])
    width, height = (x1 - x0) / across, (y1 - y0) / down
    assert width == pytest.approx(size[0], rel=0.03) or height <= 1.03 * STRETCH * width
    assert height == pytest.approx(size[1], rel=0.03) or width <= 1.03 * STRETCH * height
    assert matte[(y0 + y1) // 2, (x0 + x1) // 2] == 1
    found = matte > 0.5
    truth = picture(box, size)[..., 0] > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.8


def _shares(seen: Pixels) -> tuple[float, float]:
    """Of the view's width and of its height that the subject takes."""
    return seen[..., 0].max(axis=0).mean() / 255, seen[..., 0].max(axis=1).mean() / 255
