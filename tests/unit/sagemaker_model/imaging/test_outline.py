from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from maskdrop.output import Output
from sagemaker_model.imaging import composite
from sagemaker_model.imaging.geometry import plan
from sagemaker_model.imaging.layout import lay_out
from sagemaker_model.imaging.pixels import DecodedImage

GOLD = (255, 215, 0)


def disc(side: int, radius: float) -> np.ndarray:
    """Alpha of a disc in the middle of a square, with a soft edge of one pixel."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.asarray(np.clip(255 * (radius + 0.5 - np.hypot(x, y)), 0, 255), np.uint8)


def laid_out(alpha: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    rgb = np.full((*alpha.shape, 3), (10, 20, 30), np.uint8)
    output = Output.from_json(options)
    return lay_out(rgb, alpha, output, plan(output, alpha), DecodedImage(rgb), None)


@pytest.mark.parametrize("width", [1, 2.5, 8, 40])
def test_an_outline_is_a_band_of_its_width_around_the_subject(width: float) -> None:
    alpha = disc(301, 80)
    colours, alpha_out = laid_out(alpha, outline=f"{width}px gold")
    assert abs(np.sqrt(alpha_out.sum() / 255 / np.pi) - (80 + width)) < 0.5, "the radius of a disc of this area"
    assert alpha_out[disc(301, 79.4 + width) == 255].min() == 255
    assert alpha_out[disc(301, 80.6 + width) == 0].max() == 0
    assert (colours[(alpha == 0) & (alpha_out > 0)] == GOLD).all()
    assert (colours[alpha == 255] == (10, 20, 30)).all()


@pytest.mark.parametrize("canvas", ["100x100", "300x300", "1000x1000"])
def test_an_outline_in_pixels_has_them_on_a_canvas_of_any_size(canvas: str) -> None:
    _, alpha_out = laid_out(disc(400, 150), canvas=canvas, padding="10px", outline="10px")
    side = len(alpha_out)
    assert abs(np.count_nonzero(alpha_out[side // 2] > 127) - (side - 20)) <= 2
    assert abs(np.count_nonzero(alpha_out[:, side // 2] > 127) - (side - 20)) <= 2
    assert alpha_out[side // 2, 8] == 0
    assert alpha_out[side // 2, 12] == 255


def test_the_edge_of_an_outline_on_a_coarse_plane_is_sharp() -> None:
    """A subject of 2,000 pixels is outlined on a plane of half its size."""
    alpha = disc(2200, 1000)
    _, alpha_out = laid_out(alpha, outline="60px")
    row = alpha_out[1100].astype(int)
    edge = np.flatnonzero((row > 0) & (row < 255))
    assert edge.size <= 4, "one pixel on each side, as that of an exact disc"
    assert abs(np.count_nonzero(row > 127) - 2 * 1060) <= 2


def test_an_outline_ignores_specks_and_faint_haze() -> None:
    alpha = disc(300, 80)
    expected = laid_out(alpha, outline="10px")[1]
    alpha[5, 5], alpha[0:4, 250:300] = 255, 40
    found = laid_out(alpha, outline="10px")[1]
    assert np.array_equal(np.where(alpha == disc(300, 80), found, expected), expected)


def test_a_subject_cut_off_by_the_image_has_an_outline_on_all_sides_of_a_canvas() -> None:
    alpha = np.zeros((200, 200), np.uint8)
    alpha[100:, 50:150] = 255
    _, alpha_out = laid_out(alpha, outline="10px", padding="20px")
    assert alpha_out.shape == (160, 160)
    assert alpha_out[135, 80] == alpha_out[25, 80] == alpha_out[80, 25] == alpha_out[80, 135] == 255
    assert alpha_out[142, 80] == alpha_out[18, 80] == 0


def test_the_shadow_of_an_outlined_subject_is_that_of_its_outline() -> None:
    alpha = disc(300, 60)
    _, alpha_out = laid_out(alpha, outline="20px", shadow="drop 0% 50% 0% 40%")
    plain = laid_out(disc(300, 80), shadow="drop 0% 37.5% 0% 40%")[1]
    assert np.abs(alpha_out.astype(int) - plain).mean() < 1.5


def test_an_outline_closes_a_cut_off_subject_for_its_contact_shadow() -> None:
    alpha = np.zeros((200, 200), np.uint8)
    alpha[100:, 50:150] = 255
    canvas = {"canvas": "300x300", "padding": "25%"}
    outlined = laid_out(alpha, outline="10px", shadow="contact", **canvas)[1]
    assert outlined[226:240, 150].max() > 40
    assert laid_out(alpha, shadow="contact", **canvas)[1][226:240, 150].max() == 0


def test_an_outline_is_the_same_in_strips_and_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    alpha = cv2.GaussianBlur(disc(300, 90), (0, 0), 5)
    strips = laid_out(alpha, outline="4% navy", background="gradient red blue", shadow="drop")
    monkeypatch.setattr(composite, "STRIP_ROWS", 1000)
    at_once = laid_out(alpha, outline="4% navy", background="gradient red blue", shadow="drop")
    assert all(np.array_equal(first, second) for first, second in zip(strips, at_once, strict=True))


def test_without_a_subject_there_is_no_outline() -> None:
    alpha = np.full((40, 40), 5, np.uint8)
    assert laid_out(alpha, outline="8px")[1] is alpha
