from __future__ import annotations

import cv2
import numpy as np
import pytest

from sagemaker_model.imaging.refine import GUIDE_SIDE, TILE, UNCERTAIN, _fitted, resized, to_full_size


def photo(height: int, width: int) -> np.ndarray:
    """Blurred noise: something to follow everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def disc(height: int, width: int) -> np.ndarray:
    """A soft-edged disc that touches two sides, 0..1 float32."""
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    return np.clip((0.4 - np.hypot(x - 0.35, y - 0.35)) / 0.05 + 0.5, 0, 1)


def whole(matte: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """The guided filter without tiles: every map enlarged over the whole image."""
    height, width = rgb.shape[:2]
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, GUIDE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = resized(matte, size)
    slope, offset = _fitted(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), small)
    weight = np.clip((0.5 - np.abs(small - 0.5)) / UNCERTAIN, 0, 1)
    values, follow, slope, offset = (cv2.resize(m, (width, height)) for m in (small, weight, slope, offset))
    values = values + follow * (slope * grey + offset - values)
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(700, 500), (1023, 1025), (2001, 1499), (2400, 3200), (90, 4000)])
@pytest.mark.parametrize("side", [64, 256, 1024])
def test_tiles_give_what_the_whole_picture_at_once_gives(shape: tuple[int, int], side: int) -> None:
    rgb, matte = photo(*shape), disc(side, side)
    found, plain = to_full_size(matte, rgb), whole(matte, rgb)
    assert ((plain > 0) & (plain < 255)).any()
    assert cv2.absdiff(found, plain).max() <= 1


def test_an_edge_at_the_last_pixel_of_a_tile_is_followed_into_the_next() -> None:
    rgb, matte = photo(2 * GUIDE_SIDE, 2 * GUIDE_SIDE), np.zeros((GUIDE_SIDE, GUIDE_SIDE), np.float32)
    matte[:, TILE - 1], matte[:, TILE:] = 0.5, 1
    assert cv2.absdiff(to_full_size(matte, rgb), whole(matte, rgb)).max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (3000, 1), (1, 3000), (20, 30000), (700, 500)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_certain_matte_stays_certain_at_full_size(shape: tuple[int, int], value: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    alpha = to_full_size(np.full((16, 16), value, np.float32), noise)
    assert alpha.shape == shape
    assert (alpha == round(value * 255)).all()


def test_an_enlarged_matte_follows_the_edge_of_the_picture() -> None:
    side, edge = 800, 410
    picture = np.zeros((side, side, 3), np.uint8)
    picture[:, edge:] = 220
    true = (np.arange(side) >= edge) * 255.0
    soft = np.clip((np.arange(200) + 0.5 - edge / 4) / 4 + 0.5, 0, 1).astype(np.float32)
    matte = np.tile(soft, (200, 1))
    plain = cv2.resize(matte, (side, side)) * 255.0
    found = to_full_size(matte, picture)
    assert np.abs(found - true).mean() < np.abs(plain - true).mean() / 1.5


@pytest.mark.parametrize("shape", [(1600, 2400, 3), (1601, 2400, 3), (1600, 2400)])
def test_what_is_halved_on_the_way_has_the_means_of_one_step(shape: tuple[int, ...]) -> None:
    values = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, shape, np.uint8), (0, 0), 4)
    one = cv2.resize(values, (300, 200), interpolation=cv2.INTER_AREA)
    found = resized(values, (300, 200))
    assert found.shape == one.shape
    assert cv2.absdiff(found, one).max() <= 2
