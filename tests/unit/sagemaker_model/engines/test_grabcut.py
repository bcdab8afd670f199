from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.engines.grabcut import GrabCut


@pytest.mark.parametrize("colour", [(255, 255, 255), (200, 200, 200), (128, 128, 128), (255, 0, 0), (0, 0, 0)])
@pytest.mark.parametrize("prompts", [(), (Prompt(box=(10, 10, 200, 100)),)])
@pytest.mark.parametrize("size", [(240, 320), (1200, 900)])
def test_an_image_of_one_colour_has_no_subject(
    colour: tuple[int, int, int], prompts: Prompts, size: tuple[int, int]
) -> None:
    found = GrabCut().predict(np.full((*size, 3), colour, np.uint8), prompts)
    assert not found.values.any()
    assert any(warning.startswith("one_colour: ") for warning in found.warnings)


def test_a_subject_on_a_plain_background_is_separated() -> None:
    image = np.full((240, 320, 3), 255, np.uint8)
    image[100:140, 140:180] = 0
    found = GrabCut().predict(image, ())
    assert found.values[120, 160] == 1
    assert not found.values[:90].any()


def test_a_box_that_leaves_no_background_is_the_subject() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    found = GrabCut().predict(image, (Prompt(box=(0, 0, 60, 40)),))
    assert found.values.all()
    assert [warning.partition(":")[0] for warning in found.warnings] == ["box_kept"]


RANDOM = np.random.default_rng(0)
TWO_COLOURS = RANDOM.integers(120, 122, (480, 480, 1), np.uint8).repeat(3, 2)
MOSTLY_WHITE = np.full((480, 480, 3), 255, np.uint8)
MOSTLY_WHITE[220:260, 220:260] = RANDOM.integers(0, 256, (40, 40, 3))
MOSTLY_WHITE[:30, :30] = RANDOM.integers(0, 256, (30, 30, 3))
GREY = RANDOM.integers(0, 256, (480, 480, 1), np.uint8).repeat(3, 2)


@pytest.mark.parametrize(("image", "few"), [(TWO_COLOURS, True), (MOSTLY_WHITE, True), (GREY, False)])
def test_images_of_few_colours_get_noise_of_one_level(
    image: np.ndarray, few: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    processed: list[np.ndarray] = []
    monkeypatch.setattr(cv2, "grabCut", lambda bgr, *_: processed.append(bgr))
    GrabCut().predict(image, ())
    (bgr,) = processed
    assert np.abs(bgr[..., ::-1].astype(int) - image).max() == few


def test_an_image_of_two_colours_has_the_same_result_twice() -> None:
    """Without the noise, GrabCut takes over 20 s for this image, because its weights are equal."""
    first, second = (GrabCut().predict(TWO_COLOURS, ()).values for _ in range(2))
    assert np.array_equal(first, second)
