"""Strokes that erase and restore, as exact masks, and in the results of the pipeline."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskdrop.errors import InvalidOptions
from maskdrop.strokes import WIDTH_MAX, Stroke, strokes_from_json
from sagemaker_model.imaging import strokes as strokes_module
from sagemaker_model.imaging.strokes import draw_strokes
from tests.unit.sagemaker_model.test_instances import process

OPAQUE = np.full((60, 80), 255, np.uint8)


def stroke(mode: str, width: float | str, *points: list[float], hardness: float = 1) -> Stroke:
    (one,) = strokes_from_json([{"mode": mode, "width": width, "hardness": hardness, "points": list(points)}])
    return one


def drawn(alpha: np.ndarray, *strokes: Stroke, source: np.ndarray | None = None) -> np.ndarray:
    return draw_strokes(alpha, strokes, source)


def test_a_hard_horizontal_stroke_erases_its_width_with_half_a_pixel_at_each_rim() -> None:
    alpha = drawn(OPAQUE, stroke("erase", 6, [-20, 30.5], [100, 30.5]))
    # The line runs through the centres of row 30: rows 28 to 32 are within 2 pixels, rows 27 and 33 at the rim.
    expected = OPAQUE.copy()
    expected[28:33] = 0
    expected[[27, 33]] = 128
    np.testing.assert_array_equal(alpha, expected)


def test_a_dot_is_a_disc_whose_area_is_that_of_its_circle() -> None:
    alpha = drawn(np.zeros_like(OPAQUE), stroke("restore", 20, [40.5, 30.5]))
    y, x = np.mgrid[:60, :80]
    expected = np.clip(10.5 - np.hypot(x - 40, y - 30), 0, 1) * 255
    np.testing.assert_allclose(alpha, expected, atol=1)
    assert alpha.sum() / 255 == pytest.approx(math.pi * 100, rel=0.02)


def test_a_soft_stroke_falls_to_nothing_at_its_rim() -> None:
    alpha = drawn(OPAQUE, stroke("erase", 20, [-20, 30.5], [100, 30.5], hardness=0))[:, 40]
    assert alpha[30:42].tolist() == [0, 13, 38, 64, 89, 115, 140, 166, 191, 217, 242, 255]
    assert (alpha[:20] == 255).all()


def test_strokes_are_drawn_in_their_order() -> None:
    erase, restore = stroke("erase", 30, [10, 30], [70, 30]), stroke("restore", 10, [40.5, 10], [40.5, 50])
    assert drawn(OPAQUE, erase, restore)[30, 40] == 255
    assert drawn(OPAQUE, restore, erase)[30, 40] == 0


def test_the_alpha_of_the_engine_is_unchanged() -> None:
    alpha = OPAQUE.copy()
    drawn(alpha, stroke("erase", 30, [10, 30], [70, 30]))
    np.testing.assert_array_equal(alpha, OPAQUE)


def test_a_restored_pixel_is_as_opaque_as_the_source() -> None:
    source = np.full_like(OPAQUE, 90)
    alpha = drawn(np.zeros_like(OPAQUE), stroke("restore", 20, [10, 30], [70, 30]), source=source)
    assert (alpha[30, 40], alpha[5, 40]) == (90, 0)


def test_a_width_in_percent_is_that_of_the_longer_side() -> None:
    line = [-20, 30.5], [100, 30.5]
    for points in ((*line,), tuple([y, x] for x, y in line)):
        wide = draw_strokes(np.full((80, 80), 255, np.uint8), [stroke("erase", "10%", *points)])
        np.testing.assert_array_equal(
            wide, draw_strokes(np.full((80, 80), 255, np.uint8), [stroke("erase", 8, *points)])
        )
    assert drawn(OPAQUE, stroke("erase", "10%", *line))[:, 0].tolist().count(0) == 7


def test_a_stroke_outside_the_image_changes_nothing() -> None:
    outside = stroke("erase", 20, [-900_000, -50], [900_000, -50]), stroke("erase", 20, [500, 30])
    np.testing.assert_array_equal(drawn(OPAQUE, *outside), OPAQUE)


def test_tiles_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    strokes = stroke("erase", 17, [3, 4], [70, 50], [20, 55], hardness=0.4), stroke("restore", 9, [0, 59], [79, 0])
    whole = drawn(OPAQUE, *strokes)
    monkeypatch.setattr(strokes_module, "TILE", 16)
    np.testing.assert_array_equal(drawn(OPAQUE, *strokes), whole)


def test_strokes_that_cover_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strokes_module, "DRAWN_MAX", 10_000)
    with pytest.raises(InvalidOptions, match="fewer, shorter or thinner"):
        drawn(OPAQUE, stroke("erase", 40, [0, 0], [80, 60]))


BOX = {"box": [50, 25, 150, 75]}


def result(strokes: list[dict[str, Any]], **options: Any) -> np.ndarray:
    cutout = process(prompt=BOX, strokes=strokes, **options)
    with Image.open(io.BytesIO(cutout.data)) as image:
        return np.asarray(image)


def test_a_result_has_the_strokes_and_the_colours_of_the_source_where_they_restore() -> None:
    before = result([])
    erase = {"mode": "erase", "width": 10, "points": [[100, 30], [100, 70]]}
    restore = {"mode": "restore", "width": 10, "points": [[20, 30], [20, 70]]}
    after = result([erase, restore])
    assert (before[50, 100, 3], after[50, 100, 3]) == (255, 0)
    assert (before[50, 20, 3], after[50, 20, 3]) == (0, 255)
    everywhere = result([{"mode": "restore", "width": 2000, "points": [[100, 50]]}])
    np.testing.assert_array_equal(after[50, 17:24, :3], everywhere[50, 17:24, :3])


def test_a_mask_with_strokes_has_the_values_0_and_255() -> None:
    mask = result([{"mode": "erase", "width": 30, "hardness": 0, "points": [[100, 50]]}], task="mask")
    assert set(np.unique(mask)) == {0, 255}
    assert mask[50, 100] == 0


def test_the_region_of_interest_limits_what_a_stroke_restores() -> None:
    restore = [{"mode": "restore", "width": 40, "points": [[20, 50]]}]
    assert result(restore, output={"roi": "0 0 20px 100px"})[50, [10, 30], 3].tolist() == [255, 0]


def test_a_width_in_percent_of_a_long_image_is_at_most_that_in_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WIDTH_MAX, "px", 20)
    alpha = np.full((4, 400), 255, np.uint8)
    erased = draw_strokes(alpha, [stroke("erase", "50%", [200.5, 2])])
    np.testing.assert_array_equal(erased, draw_strokes(alpha, [stroke("erase", 20, [200.5, 2])]))
