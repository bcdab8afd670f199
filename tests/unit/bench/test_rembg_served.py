from __future__ import annotations

import numpy as np
import pytest

from tests.bench.rembg_served import Agreement

EMPTY = np.zeros((4, 4), np.uint8)
FULL = np.full((4, 4), 255, np.uint8)


def test_an_alpha_agrees_fully_with_itself() -> None:
    assert Agreement.of(FULL, FULL) == Agreement(iou=1.0, difference=0.0)
    assert Agreement.of(EMPTY, EMPTY) == Agreement(iou=1.0, difference=0.0)


def test_a_full_and_an_empty_alpha_do_not_agree() -> None:
    assert Agreement.of(FULL, EMPTY) == Agreement(iou=0.0, difference=255.0)
    assert Agreement.of(EMPTY, FULL) == Agreement(iou=0.0, difference=255.0)


def test_two_halves_that_share_a_quarter_have_an_iou_of_a_third() -> None:
    left, upper = EMPTY.copy(), EMPTY.copy()
    left[:, :2] = upper[:2] = 255
    agreement = Agreement.of(left, upper)
    assert agreement.iou == pytest.approx(1 / 3)
    assert agreement.difference == pytest.approx(255 / 2)
