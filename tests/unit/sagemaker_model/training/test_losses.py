"""Losses compared with values computed by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.training.losses import (  # noqa: E402 - needs torch
    coarse,
    edge_band,
    modnet,
    segmentation,
    self_consistency,
    soft_iou_loss,
)


def row(*values: float) -> torch.Tensor:
    """Returns an image of one row, 1x1x1xW."""
    return torch.tensor(values, dtype=torch.float32)[None, None, None]


def flat(value: float, side: int, channels: int = 1) -> torch.Tensor:
    return torch.full((1, channels, side, side), value)


def test_the_edge_band_contains_pixels_near_both_subject_and_background() -> None:
    assert edge_band(row(0, 0, 0, 1, 1, 1), 1).flatten().tolist() == [0, 0, 1, 1, 0, 0]
    assert edge_band(row(0, 0, 0, 0.5, 1, 1), 0).flatten().tolist() == [0, 0, 0, 1, 0, 0]
    assert not edge_band(flat(1, 8), 3).any()


def test_the_edge_band_ignores_alphas_near_0_and_1() -> None:
    assert not edge_band(row(0, 0.04, 0), 1).any()


def test_soft_iou_adds_one_pixel_to_intersection_and_union() -> None:
    # intersection 0.5 + 0.25, union 1 + 0.5: 1 - 1.75 / 2.5
    assert soft_iou_loss(row(0.5, 0.25), row(1, 0.5)).item() == pytest.approx(0.3)
    assert soft_iou_loss(row(0.3, 0.7), row(0.3, 0.7)).item() == 0
    assert soft_iou_loss(row(1, 1), row(0, 0)).item() == pytest.approx(2 / 3)


def test_edge_pixels_have_five_times_the_weight_in_the_cross_entropy() -> None:
    logits, alpha = row(0, 0, 0, 2, 0, 0), row(0, 0, 0, 1, 1, 1)
    # Weights 1, 1, 5, 5, 1, 1; the entropy of a logit of 0 is ln 2, of 2 for a 1 it is ln(1 + e^-2).
    entropy = ((1 + 1 + 5 + 1 + 1) * math.log(2) + 5 * math.log1p(math.exp(-2))) / 14
    found = 1 / (1 + math.exp(-2))
    iou = (found + 0.5 + 0.5 + 1) / (1.5 + 3 + 1)
    assert segmentation(logits, alpha, 1).item() == pytest.approx(entropy + 1 - iou)


def test_coarse_shrinks_to_a_sixteenth_and_blurs() -> None:
    alpha = torch.zeros(1, 1, 48, 48)
    alpha[..., 16:32, 16:32] = 1
    middle = 1 / (1 + 2 * math.exp(-1 / 1.28))  # of the Gaussian's three weights with sigma 0.8
    side = (1 - middle) / 2
    # The border is reflected, so the subject in the middle counts twice for each outer pixel.
    expected = [
        [4 * side * side, 2 * side * middle, 4 * side * side],
        [2 * side * middle, middle * middle, 2 * side * middle],
        [4 * side * side, 2 * side * middle, 4 * side * side],
    ]
    assert torch.allclose(coarse(alpha)[0, 0], torch.tensor(expected), atol=1e-6)


def test_modnet_loss_adds_semantic_detail_matte_and_composite() -> None:
    alpha, side = torch.zeros(1, 1, 32, 32), 32
    alpha[..., 16:] = 1  # the edge band of radius 2 is 4 of 32 columns
    loss = modnet(coarse(alpha) + 0.1, alpha + 0.2, (alpha - 0.3).abs(), flat(-0.5, side, 3), alpha, 2)
    semantic, detail = 10 * 0.1**2, 10 * 0.2 * 4 / 32
    matte = 0.3 + 4 * 0.3 * 4 / 32
    assert loss.item() == pytest.approx(semantic + detail + matte + 0.5 * matte, rel=1e-5)


def test_modnet_loss_of_the_truth_is_zero() -> None:
    alpha = torch.zeros(1, 1, 32, 32)
    alpha[..., 16:] = 1
    assert modnet(coarse(alpha), alpha, alpha, flat(0.5, 32, 3), alpha, 2).item() == 0


def test_self_consistency_penalises_disagreement_of_the_branches() -> None:
    matte, semantic = flat(0.5, 32), flat(0.3, 2)  # no outline: all pixels are subject
    assert self_consistency(semantic, matte, matte, matte, matte).item() == pytest.approx(100 * 2 * 0.2**2)


def test_self_consistency_penalises_changes_along_the_outline_only() -> None:
    matte = torch.zeros(1, 1, 64, 64)
    matte[..., 32:] = 1
    semantic = coarse(matte)
    agreement = self_consistency(semantic, matte, matte, matte, matte).item()
    assert agreement == pytest.approx(0, abs=1e-6)
    previous = matte.clone()
    previous[..., 0] = 1  # far from the outline: no penalty
    assert self_consistency(semantic, matte, matte, previous, previous).item() == pytest.approx(0, abs=1e-6)
    loss = self_consistency(semantic, matte, matte, matte + 0.1, matte - 0.2).item()
    assert loss == pytest.approx(0.3, abs=1e-5)


def test_self_consistency_has_gradients_for_both_branches() -> None:
    matte, semantic, detail, previous = (torch.rand(1, 1, side, side, requires_grad=True) for side in (32, 2, 32, 32))
    self_consistency(semantic, detail, matte, previous.detach(), previous.detach()).backward()
    assert matte.grad.abs().sum() > 0
    assert semantic.grad.abs().sum() > 0
