"""Being listed in the catalogue is being tested: what every engine promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from maskdrop.catalog import ENGINES
from maskdrop.prompt import Prompt
from sagemaker_model.cutout import FULL_SIZE
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.pixels import Picture

SHAPES = [(1, 1), (1, 2), (3000, 1), (1, 3000), (20, 30000), (30000, 20), (7, 5), (480, 640), (1200, 900)]

every_engine = pytest.mark.parametrize("name", ENGINES)


@pytest.fixture
def engine(name: str, engines: dict[str, Engine]) -> Engine:
    if name not in engines:
        pytest.skip(f"the weights of {name} are not in .local/weights")
    return engines[name]


def picture(shape: tuple[int, int]) -> np.ndarray:
    """A light disc on a dark ground, with noise."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    disc = np.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5) < 0.3
    noise = np.random.default_rng(0).integers(0, 30, (height, width, 3))
    return (np.where(disc[..., None], (210, 180, 160), (30, 40, 60)) + noise).clip(0, 255).astype(np.uint8)


@every_engine
@pytest.mark.parametrize("shape", SHAPES)
def test_it_answers_for_pictures_of_any_size(name: str, shape: tuple[int, int], engine: Engine) -> None:
    found = engine.predict(picture(shape), Prompt())
    assert isinstance(found, Alpha)
    assert found.values.dtype == np.float32
    assert found.values.ndim == 2
    assert np.isfinite(found.values).all()
    assert 0 <= found.values.min() <= found.values.max() <= 1
    full = FULL_SIZE[ENGINES[name].returns](found, Picture(picture(shape)))
    assert full.shape == shape
    assert full.dtype == np.uint8


@every_engine
@pytest.mark.parametrize("value", [0, 128, 255])
def test_it_survives_a_picture_of_one_colour(name: str, value: int, engine: Engine) -> None:
    found = engine.predict(np.full((240, 320, 3), value, np.uint8), Prompt())
    assert np.isfinite(found.values).all()


@every_engine
def test_it_gives_the_same_answer_from_every_thread(name: str, engine: Engine) -> None:
    pictures = [np.roll(picture((300, 200)), shift, axis=1) for shift in range(0, 80, 10)]
    one_by_one = [engine.predict(rgb, Prompt()).values for rgb in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = [found.values for found in pool.map(lambda rgb: engine.predict(rgb, Prompt()), pictures)]
    for alone, among in zip(one_by_one, together, strict=True):
        assert np.array_equal(alone, among)


@every_engine
def test_it_leaves_the_picture_as_it_was(name: str, engine: Engine) -> None:
    rgb = picture((300, 200))
    before = rgb.copy()
    engine.predict(rgb, Prompt())
    assert np.array_equal(rgb, before)


@pytest.mark.parametrize("name", [name for name, row in ENGINES.items() if "box" in row.prompts])
@pytest.mark.parametrize("box", [(60, 90, 140, 210), (0, 0, 200, 300), (0, 0, 0.4, 0.4), (199.5, 299.5, 200, 300)])
def test_one_that_takes_a_box_finds_nothing_outside_it(
    name: str, box: tuple[float, float, float, float], engine: Engine
) -> None:
    found = engine.predict(picture((300, 200)), Prompt(box=box)).values
    x0, y0, x1, y1 = (round(v) for v in box)
    found[max(0, y0 - 2) : y1 + 3, max(0, x0 - 2) : x1 + 3] = 0  # two pixels of soft edge
    assert found.max() == 0
