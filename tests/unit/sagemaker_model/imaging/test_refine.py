from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from sagemaker_model.imaging.refine import GUIDE_SIDE, STRIP_ROWS, _model, _projected, to_full_size
from sagemaker_model.imaging.resize import resized, shrunk


def photo(height: int, width: int) -> np.ndarray:
    """Blurred noise: the image has edges everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def disc(height: int, width: int) -> np.ndarray:
    """A soft-edged disc that touches two sides, 0..1 float32."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    return np.clip((0.4 - np.hypot(x - 0.35, y - 0.35)) / 0.05 + 0.5, 0, 1)


def everywhere(matte: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """The enlargement of all pixels: both maps of the model enlarged over the whole image."""
    height, width = rgb.shape[:2]
    grey: Any = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, GUIDE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    guide = shrunk(rgb, size)
    model = _model(_projected(resized(matte, size), guide), guide)
    slope, offset = (cv2.resize(values, (width, height)) for values in model)
    return np.clip(np.rint((slope * grey + offset) * 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(700, 500), (1023, 1025), (2001, 1499), (2400, 3200), (90, 4000)])
@pytest.mark.parametrize("side", [64, 256, 1024])
def test_soft_pixels_alone_have_the_result_of_the_whole_image(shape: tuple[int, int], side: int) -> None:
    rgb, matte = photo(*shape), disc(side, side)
    result, plain = to_full_size(matte, rgb), everywhere(matte, rgb)
    difference = cv2.absdiff(result, plain)
    assert ((plain > 0) & (plain < 255)).any()
    assert difference.max() <= 4
    assert (difference > 1).mean() < 0.02


def test_an_edge_at_the_end_of_a_strip_continues_in_the_next() -> None:
    rgb, matte = photo(2 * GUIDE_SIDE, 2 * GUIDE_SIDE), np.zeros((GUIDE_SIDE, GUIDE_SIDE), np.float32)
    end = STRIP_ROWS // 2  # of the first strip, in the matte
    matte[end - 1], matte[end:] = 0.5, 1
    assert cv2.absdiff(to_full_size(matte, rgb), everywhere(matte, rgb)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (3000, 1), (1, 3000), (20, 30000), (700, 500)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_certain_matte_stays_certain_at_full_size(shape: tuple[int, int], value: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    alpha = to_full_size(np.full((16, 16), value, np.float32), noise)
    assert alpha.shape == shape
    assert (alpha == round(value * 255)).all()


def test_an_enlarged_matte_follows_the_edge_of_the_image() -> None:
    side, edge = 800, 410
    image = np.zeros((side, side, 3), np.uint8)
    image[:, edge:] = 220
    true = (np.arange(side) >= edge) * 255.0
    soft = np.clip((np.arange(200) + 0.5 - edge / 4) / 4 + 0.5, 0, 1).astype(np.float32)
    matte = np.tile(soft, (200, 1))
    plain = cv2.resize(matte, (side, side)) * 255.0
    result = to_full_size(matte, image)
    assert np.abs(result - true).mean() < np.abs(plain - true).mean() / 1.2


def test_a_matte_that_is_too_wide_does_not_keep_the_background() -> None:
    side, edge = 320, 160
    image = np.full((side, side, 3), 128, np.uint8)
    image[:, edge:] = (200, 60, 40)
    matte = np.tile(np.clip((np.arange(side) - edge + 3) / 4, 0, 1).astype(np.float32), (side, 1))
    alpha = to_full_size(matte, image)
    halo = (slice(None), slice(edge - 2, edge))
    assert alpha[halo].mean() < 0.7 * 255 * matte[halo].mean()
    assert (alpha[:, edge + 8 :] == 255).all()


@pytest.mark.parametrize("difference", [0, 4])
def test_colours_that_are_alike_leave_a_soft_edge_unchanged(difference: int) -> None:
    image = np.full((200, 300, 3), 128, np.uint8)
    image[:, 150:] += np.uint8(difference)
    matte = np.tile(np.clip((np.arange(300) - 130) / 40, 0, 1).astype(np.float32), (200, 1))
    assert cv2.absdiff(to_full_size(matte, image), np.rint(matte * 255).astype(np.uint8)).max() <= 2
