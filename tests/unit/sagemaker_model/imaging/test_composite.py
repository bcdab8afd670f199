from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_model.imaging.composite import Rows, dithered, layer, over, resized_cutout, resized_matte

RNG = np.random.default_rng(7)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def full(shape: tuple[int, int], *colour: int) -> np.ndarray:
    return np.full((*shape, 3), colour, np.uint8)


def disc(side: int) -> np.ndarray:
    """Alpha of a disc with a soft edge."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.clip((side / 3 - np.hypot(x, y)) * 40 + 128, 0, 255).astype(np.uint8)


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_compositing_one_pixel_follows_porter_and_duff(front: int, a: int, back: int, b: int) -> None:
    colours, alpha = over(
        full((1, 1), front, front, front),
        np.array([[a]], np.uint8),
        layer(full((1, 1), back, back, back), np.array([[b]], np.uint8)),
    )
    shown = a / 255 + (1 - a / 255) * b / 255
    assert abs(int(alpha[0, 0]) - 255 * shown) <= 0.51
    light = front * a / 255 + back * (1 - a / 255) * b / 255  # premultiplied: composited on black
    assert abs(colours[0, 0, 0] * shown - light) <= 1


def test_opaque_pixels_hide_the_background_and_empty_pixels_show_it_exactly() -> None:
    front, back, half = noise(130, 20, 3), noise(130, 20, 3), np.zeros((130, 20), np.uint8)
    half[:, :10] = 255
    colours, alpha = over(front, half, layer(back, np.full_like(half, 255)))
    assert np.array_equal(colours, np.where(half[..., None] == 255, front, back))
    assert (alpha == 255).all()


def test_layers_are_composited_from_back_to_front() -> None:
    def one(*colour: int, alpha: int) -> Rows:
        return layer(full((1, 1), *colour), np.array([[alpha]], np.uint8))

    front = full((1, 1), 100, 0, 0), np.array([[51]], np.uint8)
    colours, alpha = over(*front, one(0, 100, 0, alpha=102), one(9, 9, 9, alpha=0), one(0, 0, 100, alpha=255))
    assert alpha.item() == 255
    assert np.abs(colours.ravel().astype(int) - (20, 32, 48)).max() <= 1


@given(st.integers(0, 255), st.integers(0, 100), st.integers(1, 40), st.integers(1, 40))
def test_dithering_keeps_whole_numbers(level: int, row: int, height: int, width: int) -> None:
    plane = np.full((height, width), level, np.float32)
    assert (dithered(plane, slice(row, row + height)) == level).all()


@given(st.floats(0, 255, width=32))
def test_dithering_keeps_the_mean(level: float) -> None:
    plane = dithered(np.full((64, 64), level, np.float32), slice(64, 128))
    assert abs(plane.mean() - level) < 0.02
    assert int(plane.max()) - int(plane.min()) <= 1


def test_a_subject_of_one_colour_keeps_its_colour_up_to_the_edge_at_every_size() -> None:
    alpha = disc(90)
    rgb = np.where(alpha[..., None] > 0, full(alpha.shape, 240, 130, 20), full(alpha.shape, 0, 255, 0))
    for side in (13, 45, 89, 200):
        colours, shown = resized_cutout(rgb, alpha, (side, side))
        assert np.abs(colours[shown > 0].astype(int) - (240, 130, 20)).max() <= 1
        assert not colours[shown == 0].any()


def test_a_matte_alone_is_resized_like_the_alpha_of_a_cut_out() -> None:
    alpha = noise(31, 47)
    for size in ((10, 9), (47, 31), (100, 90), (1, 1)):
        assert np.array_equal(resized_matte(alpha, size), resized_cutout(noise(31, 47, 3), alpha, size)[1])


def test_halving_takes_the_alpha_weighted_mean_of_four_pixels() -> None:
    rgb = np.array([[[200, 0, 0], [100, 0, 0]], [[10, 0, 0], [250, 0, 0]]], np.uint8)
    alpha = np.array([[255, 85], [0, 0]], np.uint8)
    colours, shown = resized_cutout(rgb, alpha, (1, 1))
    assert (shown.item(), colours.ravel().tolist()) == (85, [175, 0, 0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1)])
def test_images_one_pixel_high_or_wide_are_resized(shape: tuple[int, int]) -> None:
    colours, shown = resized_cutout(noise(*shape, 3), np.full(shape, 255, np.uint8), (7, 5))
    assert (colours.shape, shown.shape) == ((5, 7, 3), (5, 7))
    assert (shown == 255).all()


def test_a_blur_ignores_the_colours_of_transparent_pixels() -> None:
    alpha = np.zeros((60, 60), np.uint8)
    alpha[:, :20] = 255
    rgb = np.where(alpha[..., None] > 0, full((60, 60), 9, 90, 200), full((60, 60), 255, 0, 0))
    colours, shown = resized_cutout(rgb, alpha, (60, 60), blur=4)
    assert shown[30, 20] > 0
    assert np.abs(colours[shown > 0].astype(int) - (9, 90, 200)).max() <= 1
