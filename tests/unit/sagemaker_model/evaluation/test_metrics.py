"""Metrics compared with values computed by hand, and with a second implementation of the published definitions."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sagemaker_model.evaluation.metrics import (
    boundary_f,
    connectivity_error,
    dice,
    gradient_error,
    iou,
    score,
)

Floats = NDArray[np.float64]


def mask(*rows: str) -> NDArray[np.bool_]:
    return np.array([[mark == "#" for mark in row] for row in rows])


def alpha(*rows: list[float]) -> Floats:
    return np.array(rows, np.float64)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Draws two mattes of one size with values in tenths, which hit the thresholds exactly."""
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    values = st.lists(st.integers(0, 10), min_size=height * width, max_size=height * width)
    return tuple(np.array(draw(values)).reshape(height, width) / 10 for _ in range(2))  # type: ignore[return-value]


# By hand


def test_iou_and_dice_of_overlapping_masks() -> None:
    found, subject = mask("##.."), mask(".##.")
    assert iou(found, subject) == pytest.approx(1 / 3)
    assert dice(found, subject) == pytest.approx(1 / 2)


def test_two_empty_masks_score_1_and_one_empty_mask_scores_0() -> None:
    empty, subject = mask("...."), mask(".#..")
    for measure in (iou, dice, boundary_f):
        assert measure(empty, empty) == 1
        assert measure(empty, subject) == 0
        assert measure(subject, empty) == 0


def test_pixels_from_half_opacity_on_belong_to_the_mask() -> None:
    truth = np.array([[255, 255]], np.uint8)
    assert score(np.array([[128, 127]], np.uint8), truth).iou == 0.5


def test_errors_use_alpha_in_0_to_1_and_sums_are_in_thousands() -> None:
    found = score(np.array([[255, 0, 51, 0]], np.uint8), np.array([[0, 0, 0, 0]], np.uint8))
    assert found.sad == pytest.approx(1.2 / 1000)
    assert found.mad == pytest.approx(1.2 / 4)
    assert found.mse == pytest.approx((1 + 0.04) / 4)


def test_a_perfect_matte_has_no_error() -> None:
    matte = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    found = asdict(score(matte, matte))
    assert {name: found.pop(name) for name in ("iou", "dice", "boundary_f")} == dict.fromkeys(
        ("iou", "dice", "boundary_f"), 1
    )
    assert set(found.values()) == {0}


def test_conn_counts_disconnected_regions() -> None:
    """The truth is a bar of six pixels; the matte has a gap, and two pixels beyond it are disconnected."""
    truth, broken = alpha([1, 1, 1, 1, 1, 1]), alpha([1, 1, 1, 0, 1, 1])
    # At every threshold, the largest common region is the first three pixels. The level of the other three is 0. The
    # truth is 1 above it everywhere, the matte 0 above it in the gap: only the gap differs.
    assert connectivity_error(broken, truth) == pytest.approx(1 / 1000)


def test_conn_ignores_small_differences_above_the_level() -> None:
    truth = alpha([1, 1, 0.1, 0.1])
    assert connectivity_error(alpha([1, 1, 0.1, 0.2]), truth) == 0
    assert connectivity_error(alpha([1, 1, 0.1, 0.5]), truth) == pytest.approx(0.4 / 1000)


def test_grad_depends_on_edges_and_not_on_levels() -> None:
    flat, edge = np.full((9, 9), 0.25), np.repeat(alpha([0, 0, 0, 0, 1, 1, 1, 1, 1]), 9, axis=0)
    assert gradient_error(flat, flat + 0.5) == pytest.approx(0, abs=1e-12)
    assert gradient_error(edge, flat) > 0
    assert gradient_error(edge, 1 - edge) == pytest.approx(0, abs=1e-12)  # the same slope in the other direction


def test_boundaries_match_within_the_tolerance() -> None:
    """The diagonal of 30 x 40 pixels is 50: the tolerance is 0.4, rounded up to 1 pixel."""
    subject = np.zeros((30, 40), np.bool_)
    subject[10:20, 10:20] = True
    assert boundary_f(np.roll(subject, 1, axis=1), subject) == 1
    assert boundary_f(np.roll(subject, 20, axis=1), subject) == 0
    assert 0 < boundary_f(np.roll(subject, 2, axis=1), subject) < 1


def test_the_border_of_the_image_is_not_a_boundary() -> None:
    left = np.zeros((30, 40), np.bool_)
    left[:, :20] = True
    assert boundary_f(np.ones_like(left), np.ones_like(left)) == 1
    assert boundary_f(np.ones_like(left), left) == 0


# Second implementation, pixel by pixel


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_iou_and_dice_match_set_operations(pair: tuple[Floats, Floats]) -> None:
    found, subject = (matte >= 0.5 for matte in pair)
    predicted, true = (set(zip(*np.nonzero(mask), strict=True)) for mask in (found, subject))
    assert iou(found, subject) == pytest.approx(
        len(predicted & true) / len(predicted | true) if predicted | true else 1
    )
    total = len(predicted) + len(true)
    assert dice(found, subject) == pytest.approx(2 * len(predicted & true) / total if total else 1)


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_conn_matches_the_published_definition(pair: tuple[Floats, Floats]) -> None:
    found, truth = pair
    level = np.full(truth.shape, -1.0)
    for step in range(1, 11):
        kept = largest((found >= step / 10) & (truth >= step / 10))
        for place in np.ndindex(truth.shape):
            if level[place] < 0 and place not in kept:
                level[place] = (step - 1) / 10
    level[level < 0] = 1

    def phi(matte: Floats) -> Floats:
        above = matte - level
        return 1 - above * (above >= 0.15)

    assert connectivity_error(found, truth) == pytest.approx(np.abs(phi(found) - phi(truth)).sum() / 1000)


@settings(max_examples=30, deadline=None)
@given(pairs())
def test_grad_matches_the_published_definition(pair: tuple[Floats, Floats]) -> None:
    lengths = [np.hypot(slope(matte), slope(matte.T).T) for matte in pair]
    assert gradient_error(*pair) == pytest.approx(((lengths[0] - lengths[1]) ** 2).sum() / 1000, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(pairs())
def test_boundary_f_matches_precision_and_recall_of_the_boundaries(pair: tuple[Floats, Floats]) -> None:
    found, subject = (matte >= 0.5 for matte in pair)
    predicted, true = edge(found), edge(subject)
    tolerance = math.ceil(0.008 * math.hypot(*found.shape))
    if not predicted or not true:
        assert boundary_f(found, subject) == (not predicted and not true)
        return
    precision, recall = near(predicted, true, tolerance), near(true, predicted, tolerance)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert boundary_f(found, subject) == pytest.approx(expected)


Place = tuple[int, ...]


def largest(mask: NDArray[np.bool_]) -> set[Place]:
    """Returns the first of the largest regions, by flood fill."""
    regions: list[set[Place]] = []
    for start in np.ndindex(mask.shape):
        if not mask[start] or any(start in region for region in regions):
            continue
        region, todo = {start}, [start]
        while todo:
            y, x = todo.pop()
            for place in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                inside = 0 <= place[0] < mask.shape[0] and 0 <= place[1] < mask.shape[1]
                if inside and mask[place] and place not in region:
                    region.add(place)
                    todo.append(place)
        regions.append(region)
    return max(regions, key=len, default=set())


def slope(matte: Floats) -> Floats:
    """Returns the derivative along x, by the full 9 x 9 filter of a Gaussian's derivative."""
    sigma, half = 1.4, 4
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    kernel = x * np.exp(-(x * x + y * y) / (2 * sigma * sigma))
    kernel = kernel / np.sqrt((kernel**2).sum())
    padded = np.pad(matte, half, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.einsum("hwij,ij->hw", windows, kernel)


def edge(mask: NDArray[np.bool_]) -> list[Place]:
    height, width = mask.shape
    return [
        (y, x)
        for y, x in np.ndindex(mask.shape)
        if mask[y, x]
        and not all(
            mask[b, a]
            for b, a in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if 0 <= b < height and 0 <= a < width
        )
    ]


def near(places: list[Place], others: list[Place], tolerance: int) -> float:
    return float(np.mean([min(math.dist(place, other) for other in others) <= tolerance for place in places]))
