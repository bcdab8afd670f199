from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from sagemaker_model.data.backdrops import SUBJECT_MARGIN, panorama_view, read_panorama, strips
from sagemaker_model.data.records import InvalidData, Record


def record(x: int, wide: int, width: int = 600, height: int = 400) -> Record:
    """Returns a record with a subject `wide` pixels wide that starts at `x`; red encodes the column."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)
    mask = np.zeros((height, width), np.uint8)
    mask[100:300, x : x + wide] = 255
    return Record(id="a", image=image, mask=mask, width=width, height=height)


def test_strips_left_and_right_of_the_subject_have_the_full_height() -> None:
    one = record(200, 100)
    left, right = strips(one)
    assert left.shape == (400, 200 - SUBJECT_MARGIN, 3)
    assert right.shape == (400, 300 - SUBJECT_MARGIN, 3)
    assert np.array_equal(right, one.image[:, 300 + SUBJECT_MARGIN :])


@pytest.mark.parametrize(("x", "wide", "count"), [(0, 300, 1), (150, 300, 0), (100, 100, 1), (0, 600, 0)])
def test_narrow_strips_are_skipped(x: int, wide: int, count: int) -> None:
    assert len(list(strips(record(x, wide)))) == count


def sphere(height: int = 128) -> np.ndarray:
    """Returns a panorama of uniform brightness, red below the horizon and blue above."""
    panorama = np.zeros((height, 2 * height, 3), np.float32)
    panorama[: height // 2, :, 2] = panorama[height // 2 :, :, 0] = panorama[..., 1] = 3.0
    return panorama


def test_a_view_has_the_sky_above_the_ground() -> None:
    for seed in range(8):
        image = panorama_view(sphere(), 64, np.random.default_rng(seed)).astype(int)
        assert image.shape == (64, 64, 3)
        blueness = (image[..., 2] - image[..., 0]).mean(1)
        assert blueness[0] > 100 > -100 > blueness[-1]
        assert np.all(np.diff(blueness) <= 1)


def test_exposure_of_a_view_is_independent_of_the_light_and_reproducible_by_seed() -> None:
    bright, dark = (
        panorama_view(sphere() * np.float32(light), 64, np.random.default_rng(3)) for light in (1000.0, 0.001)
    )
    assert np.abs(bright.astype(int) - dark).max() <= 1
    assert 120 < np.median(bright) < 220
    assert not np.array_equal(bright, panorama_view(sphere(), 64, np.random.default_rng(4)))


def test_read_panorama_returns_rgb(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.hdr"), sphere()[..., ::-1])
    assert np.allclose(read_panorama(tmp_path / "a.hdr"), sphere(), rtol=0.01)


def test_files_that_are_not_panoramas_are_rejected_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.hdr").write_bytes(b"no image")
    cv2.imwrite(str(tmp_path / "b.hdr"), sphere()[:, :100])
    cv2.imwrite(str(tmp_path / "c.png"), np.zeros((10, 20, 3), np.uint8))
    for name in ("a.hdr", "b.hdr", "c.png", "missing.hdr"):
        with pytest.raises(InvalidData, match=name):
            read_panorama(tmp_path / name)
