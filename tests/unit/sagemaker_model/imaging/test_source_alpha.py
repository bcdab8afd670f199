from __future__ import annotations

import numpy as np
import pytest

from sagemaker_model.imaging.source_alpha import combined_alpha, own_alpha

ROWS, COLUMNS = np.mgrid[0:200, 0:200]
RADIUS = np.hypot(ROWS - 100, COLUMNS - 100)
CUTOUT = np.clip((62 - RADIUS) / 4 * 255, 0, 255).astype(np.uint8)
"""A disc with a soft edge on a transparent ground."""


def disc(radius: float, soft: float = 4) -> np.ndarray:
    return np.clip((radius + soft / 2 - RADIUS) / soft * 255, 0, 255).astype(np.uint8)


def test_an_opaque_source_keeps_the_predicted_alpha() -> None:
    assert combined_alpha(disc(50), None) is not None
    assert np.array_equal(combined_alpha(disc(50), None), disc(50))
    assert np.array_equal(own_alpha(disc(50), None), disc(50))


@pytest.mark.parametrize("radius", [58, 60, 64, 90])
@pytest.mark.parametrize("opacity", [0.3, 0.5, 1])
def test_a_cutout_of_what_the_engine_selects_keeps_its_alpha(radius: float, opacity: float) -> None:
    source = np.rint(CUTOUT * opacity).astype(np.uint8)
    combined = combined_alpha(disc(radius), source)
    assert np.array_equal(combined, source)
    assert set(np.unique(own_alpha(combined, source)[source > 0])) == {255}


def test_a_round_portrait_loses_the_background_inside_its_circle() -> None:
    avatar = disc(95, soft=2)
    combined = combined_alpha(disc(40), avatar)
    assert combined[RADIUS > 50].max() == 0
    assert combined[RADIUS < 35].min() == 255


def test_a_photo_with_rounded_corners_loses_its_background() -> None:
    source = np.where((ROWS < 4) & (COLUMNS < 4), 0, 255).astype(np.uint8)
    assert np.array_equal(combined_alpha(disc(60), source), disc(60))


def test_the_edge_of_a_subject_at_the_edge_of_the_source_is_that_of_the_source() -> None:
    half = np.where(COLUMNS < 100, CUTOUT, 0).astype(np.uint8)  # the engine selects half of the disc
    selected = np.where(COLUMNS < 50, disc(60), 0).astype(np.uint8)
    combined = combined_alpha(selected, half)
    inside = (COLUMNS < 46) & (half > 0)
    assert np.abs(combined[inside].astype(int) - half[inside]).max() <= 1
    assert combined[COLUMNS > 60].max() == 0


def test_a_half_opaque_source_scales_the_predicted_alpha_and_only_that_is_unmixed() -> None:
    source = np.full((200, 200), 128, np.uint8)
    combined = combined_alpha(disc(60), source)
    assert np.abs(combined.astype(int) - np.rint(disc(60) * (128 / 255))).max() <= 1
    assert np.abs(own_alpha(combined, source).astype(int) - disc(60)).max() <= 2


def test_nothing_is_selected_in_a_fully_transparent_source() -> None:
    assert combined_alpha(disc(60), np.zeros((200, 200), np.uint8)).max() == 0
