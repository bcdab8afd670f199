"""The choices of the engine `prompted`, with networks that return what a test wants."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.engines.prompted import Prompted
from sagemaker_model.engines.two_passes import Floats
from sagemaker_model.engines.u2netp import SIDE
from sagemaker_model.imaging.pixels import Pixels

BOX = (40.0, 40.0, 140.0, 140.0)
RGB = np.zeros((200, 200, 3), np.uint8)


def crop(start: float, end: float) -> Floats:
    """Returns the alpha of the padded box, which is 1 from `start` to `end` of both sides of the box, 0..1."""
    first, last = (round((0.2 + one) / 1.4 * SIDE) for one in (start, end))
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[first:last, first:last] = 1
    return alpha


def grabcut(rgb: Pixels, prompts: Prompts) -> Alpha:
    return Alpha(np.full(rgb.shape[:2], 0.6, np.float32))


def segment(portrait: Floats, general: Floats | None) -> Alpha:
    engine = Prompted()
    parts: dict[str, Any] = {
        "_portrait": SimpleNamespace(predict=lambda *_: Alpha(portrait)),
        "_general": None if general is None else SimpleNamespace(predict_square=lambda _: general),
        "_grabcut": SimpleNamespace(predict=grabcut),
    }
    for name, part in parts.items():
        setattr(engine, name, part)
    return engine.predict(RGB, (Prompt(box=BOX),))


@pytest.mark.parametrize(
    ("portrait", "general", "engine"),
    [
        (crop(0, 1), crop(0, 1), "u2netp"),  # they agree
        (crop(0, 0.6), crop(0, 0.6), "u2netp"),  # they agree on less than the box: it is drawn widely
        (crop(0, 0.5), crop(0, 1), "u2netp"),
        (crop(0, 1), crop(0, 0.5), "portrait"),
        (crop(0, 0.5), crop(0.5, 1), "grabcut"),
        (crop(0, 0), crop(0, 0), "grabcut"),
        (crop(0, 1), None, "portrait"),
        (crop(0, 0.5), None, "grabcut"),
    ],
)
def test_the_mask_that_fits_the_box_is_the_result_else_that_of_grabcut(
    portrait: Floats, general: Floats | None, engine: str
) -> None:
    alpha = segment(portrait, general)
    assert alpha.engine == engine
    assert any(f"{engine} segmented the box" in warning for warning in alpha.warnings)


def test_a_general_mask_is_cut_at_the_box() -> None:
    alpha = segment(crop(0, 0), crop(-0.2, 1)).values
    assert alpha[45, 45] == 1
    assert alpha[35, 35] == 0
