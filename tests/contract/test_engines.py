"""Being listed in the catalogue is being tested: what every engine promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from maskdrop.catalog import ENGINES
from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.cutout import FULL_SIZE_ALPHA
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.imaging.pixels import DecodedImage

SHAPES = [(1, 1), (1, 2), (3000, 1), (1, 3000), (20, 30000), (30000, 20), (7, 5), (480, 640), (1200, 900)]

every_engine = pytest.mark.parametrize("name", ENGINES)


@pytest.fixture
def engine(name: str, engines: dict[str, Engine]) -> Engine:
    if name not in engines:
        pytest.skip(f"the weights of {name} are not in .local/weights")
    return engines[name]


def prompts(name: str, shape: tuple[int, int]) -> Prompts:
    """None, or for an engine that works by points alone, one in the middle."""
    return (Prompt(points=((shape[1] / 2, shape[0] / 2, 1),)),) if "points" in ENGINES[name].prompts else ()


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
    found = engine.predict(picture(shape), prompts(name, shape))
    assert isinstance(found, Alpha)
    assert found.values.dtype == np.float32
    assert found.values.ndim == 2
    assert np.isfinite(found.values).all()
    assert 0 <= found.values.min() <= found.values.max() <= 1
    full = FULL_SIZE_ALPHA[ENGINES[name].returns](found, DecodedImage(picture(shape)))
    assert full.shape == shape
    assert full.dtype == np.uint8


@every_engine
@pytest.mark.parametrize("value", [0, 128, 255])
def test_it_survives_a_picture_of_one_colour(name: str, value: int, engine: Engine) -> None:
    found = engine.predict(np.full((240, 320, 3), value, np.uint8), prompts(name, (240, 320)))
    assert np.isfinite(found.values).all()


@every_engine
def test_it_gives_the_same_answer_from_every_thread(name: str, engine: Engine) -> None:
    pictures = [np.roll(picture((300, 200)), shift, axis=1) for shift in range(0, 80, 10)]
    said = prompts(name, (300, 200))
    one_by_one = [engine.predict(rgb, said).values for rgb in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = [found.values for found in pool.map(lambda rgb: engine.predict(rgb, said), pictures)]
    for alone, among in zip(one_by_one, together, strict=True):
        assert np.array_equal(alone, among)


@every_engine
def test_it_leaves_the_picture_as_it_was(name: str, engine: Engine) -> None:
    rgb = picture((300, 200))
    before = rgb.copy()
    engine.predict(rgb, prompts(name, (300, 200)))
    assert np.array_equal(rgb, before)


# SAM takes a box for a hint: what reaches a little out of it is its subject too.
cut_by_boxes = pytest.mark.parametrize("name", [name for name, row in ENGINES.items() if row.prompts == {"box"}])


@cut_by_boxes
def test_one_that_takes_a_box_takes_several(name: str, engine: Engine) -> None:
    """Each half of the disc in a box of its own."""
    halves = (Prompt(box=(38, 58, 100, 242)), Prompt(box=(100, 58, 162, 242)))
    found = engine.predict(picture((300, 200)), halves).values
    assert found[150, 60:140].min() > 0.5
    left = engine.predict(picture((300, 200)), halves[:1]).values
    assert left[150, 110:140].max() == 0


@cut_by_boxes
@pytest.mark.parametrize("box", [(60, 90, 140, 210), (0, 0, 200, 300), (0, 0, 0.4, 0.4), (199.5, 299.5, 200, 300)])
def test_one_that_takes_a_box_finds_nothing_outside_it(
    name: str, box: tuple[float, float, float, float], engine: Engine
) -> None:
    found = engine.predict(picture((300, 200)), (Prompt(box=box),)).values
    x0, y0, x1, y1 = (round(v) for v in box)
    found[max(0, y0 - 2) : y1 + 3, max(0, x0 - 2) : x1 + 3] = 0  # two pixels of soft edge
    assert found.max() == 0
