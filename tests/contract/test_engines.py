"""The conformance test of the engines: every engine of the catalogue must pass it.

Engines without weights in .local/weights run with random weights if torch and transformers are installed: MODNet in its
published size, SAM 1 and SAM 2.1 as small networks. Of the models of engines/onnx_models.py, rows of one class, two run
as small networks; its own tests run each.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from maskdrop.catalog import ENGINES, PROMPTED_ENGINE
from maskdrop.prompt import Prompt, Prompts
from sagemaker_model.cutout import FULL_SIZE_ALPHA
from sagemaker_model.engines.base import Alpha, Engine, load
from sagemaker_model.engines.birefnet import EXPORTED, VARIANTS
from sagemaker_model.engines.onnx_models import MODELS
from sagemaker_model.engines.sam import Sam, Sam2
from sagemaker_model.imaging.pixels import DecodedImage, Pixels
from tests.unit.sagemaker_model.engines.small_onnx import install, network

SHAPES = [(1, 1), (1, 2), (3000, 1), (1, 3000), (20, 30000), (30000, 20), (7, 5), (480, 640), (1200, 900)]

SMALL = ("u2net", "birefnet-general-lite")
"""Models that run as small networks: probabilities at 320 pixels and logits at 1024."""

OF_ANY_SIZE = "birefnet-dynamic"
"""The variant of BiRefNet that stands for those whose checkpoints only torch runs."""

SAME_CLASS = {*MODELS, *VARIANTS} - {*SMALL, OF_ANY_SIZE}

every_engine = pytest.mark.parametrize(
    "name", [name for name, row in ENGINES.items() if row.returns == "alpha" and name not in SAME_CLASS]
)


@pytest.fixture(scope="session")
def all_engines(engines: dict[str, Engine], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    """Returns the engines of the weights folder, the ONNX models as small networks, and with torch and transformers the
    others with random weights."""
    small = tmp_path_factory.mktemp("small_networks")
    for name in SMALL:
        install(name, small)
    (small / f"{OF_ANY_SIZE}{EXPORTED}").write_bytes(network(None, batch="n", output="matte"))
    engines = engines | load((ENGINES[name] for name in (*SMALL, OF_ANY_SIZE)), "cpu", small)
    if not (find_spec("torch") and find_spec("transformers")):
        return engines
    folder = tmp_path_factory.mktemp("random_weights")
    write_random_weights(folder)
    return load((row for name, row in ENGINES.items() if name not in engines), "cpu", folder) | engines


def write_random_weights(folder: Path) -> None:
    from tests.bench.random_weights import make_modnet_checkpoint
    from tests.unit.sagemaker_model.nets.small_sam import NETWORKS, save_folder

    make_modnet_checkpoint(folder)
    for engine, variant in ((Sam, "vit_b"), (Sam2, "tiny")):
        save_folder(NETWORKS[engine.name](), folder / engine.hugging_face_folders[variant])


@pytest.fixture
def engine(name: str, all_engines: dict[str, Engine]) -> Engine:
    if name not in all_engines:
        pytest.skip(f"the weights of {name} are not in .local/weights, and torch or transformers is not installed")
    return all_engines[name]


def prompts(name: str, shape: tuple[int, int]) -> Prompts:
    """Returns a box in the middle for the engine that needs a prompt, a point for other engines that take points."""
    height, width = shape
    if name == PROMPTED_ENGINE:
        return (Prompt(box=(width / 4, height / 4, 3 * width / 4, 3 * height / 4)),)
    return (Prompt(points=((width / 2, height / 2, 1),)),) if "points" in ENGINES[name].prompts else ()


def image(shape: tuple[int, int]) -> Pixels:
    """Returns a light disc on a dark background, with noise."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    disc = np.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5) < 0.3
    noise = np.random.default_rng(0).integers(0, 30, (height, width, 3))
    return (np.where(disc[..., None], (210, 180, 160), (30, 40, 60)) + noise).clip(0, 255).astype(np.uint8)


@every_engine
@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_of_any_size_has_an_alpha(name: str, shape: tuple[int, int], engine: Engine) -> None:
    alpha = engine.predict(image(shape), prompts(name, shape))
    assert isinstance(alpha, Alpha)
    assert alpha.values.dtype == np.float32
    assert alpha.values.ndim == 2
    assert np.isfinite(alpha.values).all()
    assert 0 <= alpha.values.min() <= alpha.values.max() <= 1
    full = FULL_SIZE_ALPHA[ENGINES[name].returns](alpha, DecodedImage(image(shape)))
    assert full.shape == shape
    assert full.dtype == np.uint8


@every_engine
@pytest.mark.parametrize("value", [0, 128, 255])
def test_an_image_of_one_colour_has_a_finite_alpha(name: str, value: int, engine: Engine) -> None:
    alpha = engine.predict(np.full((240, 320, 3), value, np.uint8), prompts(name, (240, 320)))
    assert np.isfinite(alpha.values).all()


@every_engine
def test_concurrent_threads_get_the_same_alphas_as_one_thread(name: str, engine: Engine) -> None:
    images = [np.roll(image((300, 200)), shift, axis=1) for shift in (0, 30, 60)]

    def predict(rgb: Pixels) -> NDArray[np.float32]:
        return engine.predict(rgb, prompts(name, (300, 200))).values

    with ThreadPoolExecutor(3) as pool:  # first, so that no embedding is cached
        concurrent = list(pool.map(predict, images))
    for alpha, rgb in zip(concurrent, images, strict=True):
        assert np.array_equal(alpha, predict(rgb))


@every_engine
def test_predict_does_not_change_the_image(name: str, engine: Engine) -> None:
    rgb = image((300, 200))
    before = rgb.copy()
    engine.predict(rgb, prompts(name, (300, 200)))
    assert np.array_equal(rgb, before)


# For SAM a box is a hint: its subject may reach out of the box.
cut_by_boxes = pytest.mark.parametrize(
    "name", [name for name, row in ENGINES.items() if row.prompts == {"box", "label"}]
)


@cut_by_boxes
def test_an_engine_that_takes_a_box_takes_several(name: str, engine: Engine) -> None:
    """Each half of the disc has its own box."""
    halves = (Prompt(box=(38, 58, 100, 242)), Prompt(box=(100, 58, 162, 242)))
    both = engine.predict(image((300, 200)), halves).values
    assert both[150, 60:140].min() > 0.5
    left = engine.predict(image((300, 200)), halves[:1]).values
    assert left[150, 110:140].max() == 0


@cut_by_boxes
@pytest.mark.parametrize("box", [(60, 90, 140, 210), (0, 0, 200, 300), (0, 0, 0.4, 0.4), (199.5, 299.5, 200, 300)])
def test_the_alpha_is_0_outside_the_box(name: str, box: tuple[float, float, float, float], engine: Engine) -> None:
    alpha = engine.predict(image((300, 200)), (Prompt(box=box),)).values
    x0, y0, x1, y1 = (round(v) for v in box)
    alpha[max(0, y0 - 2) : y1 + 3, max(0, x0 - 2) : x1 + 3] = 0  # two pixels of soft edge
    assert alpha.max() == 0
