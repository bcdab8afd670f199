from __future__ import annotations

import numpy as np
import pytest

from sagemaker_model.imaging.foreground import estimate_foreground


def scene(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A soft disc with a red gradient on a green gradient: image, alpha and the disc's own colours."""
    y, x = np.mgrid[:side, :side] / side
    alpha = np.clip((0.35 - np.hypot(x - 0.5, y - 0.5)) / 0.12 + 0.5, 0, 1)
    fore = np.dstack((200 + 40 * x, 60 + 60 * y, 40 + 20 * x))
    back = np.dstack((30 + 40 * y, 180 + 60 * x, 90 + 60 * y))
    image = alpha[..., None] * fore + (1 - alpha[..., None]) * back
    return image.round().astype(np.uint8), (alpha * 255).round().astype(np.uint8), fore


@pytest.mark.parametrize("side", [200, 1400])
def test_the_background_is_removed_from_the_soft_edge(side: int) -> None:
    image, alpha, true = scene(side)
    band = (alpha > 0) & (alpha < 255)
    weight = alpha[band][:, None] / 255

    def error(colours: np.ndarray) -> float:
        """Mean error of the composite on white in the band, 0 to 255."""
        return float(np.abs(weight * (colours[band] - true[band])).mean())

    found = estimate_foreground(image, alpha)
    assert error(found.astype(float)) < error(image.astype(float)) / 4


def test_opaque_and_transparent_pixels_are_unchanged() -> None:
    image, alpha, _ = scene(200)
    found = estimate_foreground(image, alpha)
    outside = (alpha == 0) | (alpha == 255)
    assert np.array_equal(found[outside], image[outside])


def test_faint_pixels_that_vanish_at_the_solved_size_keep_the_image_s_detail() -> None:
    image = np.full((3000, 3000, 3), 90, np.uint8)
    alpha = np.full((3000, 3000), 255, np.uint8)
    alpha[::200, ::200] = 254
    assert np.abs(estimate_foreground(image, alpha).astype(int) - 90).max() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (20, 12000)])
def test_very_thin_images_have_a_foreground(shape: tuple[int, int]) -> None:
    image = np.full((*shape, 3), 77, np.uint8)
    found = estimate_foreground(image, np.full(shape, 128, np.uint8))
    assert found.shape == image.shape
    assert np.abs(found.astype(int) - 77).max() <= 1
