from __future__ import annotations

import cv2
import numpy as np
import pytest

from sagemaker_model.imaging.resize import halved, resized, shrunk

NOISE = np.random.default_rng(0).integers(0, 256, (1600, 2400, 3), np.uint8)


@pytest.mark.parametrize("shape", [(1600, 2400, 3), (1601, 2400, 3), (1600, 2400)])
def test_an_image_that_is_halved_first_has_the_means_of_one_step(shape: tuple[int, ...]) -> None:
    values = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, shape, np.uint8), (0, 0), 4)
    single_step = cv2.resize(values, (300, 200), interpolation=cv2.INTER_AREA)
    result = resized(values, (300, 200))
    assert result.shape == single_step.shape
    assert cv2.absdiff(result, single_step).max() <= 2


@pytest.mark.parametrize("size", [(300, 200), (2399, 1599), (2400, 10)])
def test_without_halving_an_image_is_shrunk_by_area_means(size: tuple[int, int]) -> None:
    assert np.array_equal(resized(NOISE, size, halve=False), cv2.resize(NOISE, size, interpolation=cv2.INTER_AREA))


def test_an_image_is_enlarged_by_linear_interpolation() -> None:
    small = NOISE[:20, :30]
    assert np.array_equal(resized(small, (70, 50)), cv2.resize(small, (70, 50), interpolation=cv2.INTER_LINEAR))


def test_an_image_of_the_size_is_copied_unchanged() -> None:
    assert np.array_equal(resized(NOISE, (2400, 1600)), NOISE)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (9, 1, 3)])
def test_an_image_one_pixel_high_or_wide_keeps_its_dimensions(shape: tuple[int, ...]) -> None:
    assert resized(np.zeros(shape, np.uint8), (1, 1)).shape == (1, 1, *shape[2:])


@pytest.mark.parametrize("shape", [(1600, 2400, 3), (1601, 2403, 3), (1599, 2401)])
@pytest.mark.parametrize("size", [(1024, 683), (300, 200), (1800, 1200)])
def test_a_smooth_image_is_shrunk_fast_to_almost_its_area_means(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    values = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, shape, np.uint8), (0, 0), 12)
    assert cv2.absdiff(shrunk(values, size), cv2.resize(values, size, interpolation=cv2.INTER_AREA)).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1, 3), (3, 4000, 3)])
def test_a_thin_image_is_shrunk_to_the_size(shape: tuple[int, ...]) -> None:
    size = -(-shape[1] // 7), -(-shape[0] // 7)
    assert shrunk(np.full(shape, 9, np.uint8), size).shape == (size[1], size[0], *shape[2:])
    assert (shrunk(np.full(shape, 9, np.uint8), size) == 9).all()


@pytest.mark.parametrize("shape", [(1, 1), (4, 6, 3), (5, 7), (1, 7, 3)])
def test_an_odd_side_is_halved_to_the_larger_half(shape: tuple[int, ...]) -> None:
    assert halved(np.zeros(shape, np.uint8)).shape == ((shape[0] + 1) // 2, (shape[1] + 1) // 2, *shape[2:])
