"""Two passes over synthetic images: a white subject on black, and a fake network that records its inputs."""

from __future__ import annotations

import numpy as np
import pytest

from sagemaker_model.engines.two_passes import ASPECT_MAX, MARGIN, two_passes
from sagemaker_model.imaging.pixels import Pixels

SIDE = 64


class FakeNetwork:
    def __init__(self) -> None:
        self.squares: list[Pixels] = []

    def __call__(self, square: Pixels) -> np.ndarray:
        assert square.shape == (SIDE, SIDE, 3)
        self.squares.append(square)
        return square[..., 0].astype(np.float32) / 255


def image(box: tuple[int, int, int, int], size: tuple[int, int] = (600, 400)) -> Pixels:
    rgb = np.zeros((size[1], size[0], 3), np.uint8)
    x0, y0, x1, y1 = box
    rgb[y0:y1, x0:x1] = 255
    return rgb


def test_an_image_without_people_takes_one_pass() -> None:
    network = FakeNetwork()
    assert not two_passes(image((0, 0, 0, 0)), network, SIDE).any()
    assert len(network.squares) == 1


def test_the_second_pass_gets_the_padded_box_and_its_mirrored_image() -> None:
    network, person = FakeNetwork(), image((200, 100, 400, 300))
    person[100:150, 200:250] = 0  # so that the subject is not symmetric
    matte = two_passes(person, network, SIDE)
    _, straight, mirrored = network.squares
    horizontal, vertical = _shares(straight)
    assert horizontal == pytest.approx(1 / (1 + 2 * MARGIN), abs=0.06)
    assert vertical == pytest.approx(1 / (1 + 2 * MARGIN), abs=0.06)
    assert np.array_equal(mirrored, straight[:, ::-1])
    assert not np.array_equal(mirrored, straight)
    assert matte[200, 300] == 1
    assert matte[50, 100] == 0


def test_if_people_fill_the_image_the_second_pass_gets_only_its_mirrored_image() -> None:
    network = FakeNetwork()
    matte = two_passes(image((10, 10, 590, 380)), network, SIDE)
    whole, mirrored = network.squares
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
def test_the_box_of_the_second_pass_keeps_to_the_maximum_aspect_ratio_within_the_image(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> None:
    network = FakeNetwork()
    matte = two_passes(image(box, size), network, SIDE)
    x0, y0, x1, y1 = box
    horizontal, vertical = _shares(network.squares[-1])
    width, height = (x1 - x0) / horizontal, (y1 - y0) / vertical
    assert width == pytest.approx(size[0], rel=0.03) or height <= 1.03 * ASPECT_MAX * width
    assert height == pytest.approx(size[1], rel=0.03) or width <= 1.03 * ASPECT_MAX * height
    assert matte[(y0 + y1) // 2, (x0 + x1) // 2] == 1
    found = matte > 0.5
    truth = image(box, size)[..., 0] > 0
    assert (found & truth).sum() / (found | truth).sum() > 0.8


def _shares(square: Pixels) -> tuple[float, float]:
    """Returns the shares of the square's width and height that the subject covers."""
    return square[..., 0].max(axis=0).mean() / 255, square[..., 0].max(axis=1).mean() / 255
