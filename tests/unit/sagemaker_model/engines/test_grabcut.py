from __future__ import annotations

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
