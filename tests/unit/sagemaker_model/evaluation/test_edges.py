from __future__ import annotations

import numpy as np
import pytest

from sagemaker_model.evaluation.edges import edge_error


def scene(background: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey disc with a soft edge on a background: the image and the true alpha."""
    y, x = np.mgrid[:120, :160]
    alpha = np.clip((40 - np.hypot(x - 80, y - 60)) / 6 + 0.5, 0, 1)
    image = np.rint(alpha * 150 + (1 - alpha) * background)
    return np.repeat(image[..., None], 3, axis=2).astype(np.uint8), np.rint(alpha * 255).astype(np.uint8)


def test_the_true_alpha_has_no_edge_error() -> None:
    rgb, truth = scene(20)
    assert edge_error(rgb, truth, truth) == 0


def test_an_alpha_shifted_by_more_pixels_has_a_larger_edge_error() -> None:
    rgb, truth = scene(20)
    one, three = (edge_error(rgb, np.roll(truth, shift, axis=1), truth) for shift in (1, 3))
    assert one is not None
    assert three is not None
    assert 0 < one < three


def test_pixels_far_from_the_edge_do_not_count() -> None:
    rgb, truth = scene(20)
    alpha = truth.copy()
    alpha[:8, :8] = 255
    assert edge_error(rgb, alpha, truth) == 0


@pytest.mark.parametrize("value", [0, 255])
def test_a_truth_without_soft_edge_has_no_edge_error(value: int) -> None:
    rgb, truth = scene(20)
    hard = np.where(truth > 127, 255, 0).astype(np.uint8)
    assert edge_error(rgb, truth, hard) is None
    assert edge_error(rgb, truth, np.full_like(truth, value)) is None
