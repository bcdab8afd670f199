"""The subject of an alpha: box, coverage and score."""

from __future__ import annotations

import numpy as np
import pytest

from maskdrop.job import Subject
from sagemaker_model.cutout import subject_of


def test_the_box_surrounds_pixels_that_are_at_least_half_opaque() -> None:
    alpha = np.zeros((40, 60), np.uint8)
    alpha[5:35, 10:50] = 127
    alpha[10:30, 20:45] = 128
    assert subject_of(alpha).box == (20, 10, 45, 30)


def test_the_score_is_the_mean_certainty_inside_the_box() -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    alpha[0, 0] = alpha[-1, -1] = 255
    subject = subject_of(alpha)
    assert subject.box == (0, 0, 60, 40)
    assert subject.score == pytest.approx(np.abs(alpha / 127.5 - 1).mean())
    assert subject.coverage == pytest.approx(alpha.mean() / 255)


def test_a_subject_without_a_soft_pixel_has_the_score_1() -> None:
    alpha = np.zeros((40, 60), np.uint8)
    alpha[10:30, 20:45] = 255
    assert subject_of(alpha).score == 1


def test_an_alpha_below_half_opaque_has_no_subject() -> None:
    assert subject_of(np.full((40, 60), 51, np.uint8)) == Subject(None, 0.2, 0.0)
