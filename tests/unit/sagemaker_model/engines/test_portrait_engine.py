"""The engine `portrait`, with a file exported from the published weights of `selfie`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("tflite", reason="tflite is not installed")

from sagemaker_model.engines import portrait  # noqa: E402
from sagemaker_model.engines.selfie import Selfie  # noqa: E402
from sagemaker_model.export import formats as export  # noqa: E402
from sagemaker_model.imaging.pixels import Pixels  # noqa: E402
from sagemaker_model.nets.portrait import Portrait  # noqa: E402
from sagemaker_model.weights.checkpoints import load_into  # noqa: E402
from sagemaker_model.weights.published import portrait_state  # noqa: E402
from sagemaker_model.weights.store import BUNDLED, InvalidWeights, NotInstalled, import_file, named  # noqa: E402

PHOTO = Path(__file__).parents[4] / "samples" / "default" / "astronaut.png"

Install = Callable[[torch.nn.Module], Path]


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Returns a function that exports a network, imports the file and returns the weights folder."""

    def install(net: torch.nn.Module) -> Path:
        export.to_onnx(net, tmp_path / "mine.onnx")
        import_file(named("portrait"), tmp_path / "mine.onnx", tmp_path / "weights", own=True)
        return tmp_path / "weights"

    return install


@pytest.fixture
def published(weights_dir: Path) -> Portrait:
    net = Portrait()
    load_into(net, portrait_state(weights_dir / named("selfie").file))
    return net


def photo() -> Pixels:
    return np.ascontiguousarray(cv2.imread(str(PHOTO))[..., ::-1])


def engine(folder: Path) -> portrait.Portrait:
    loaded = portrait.Portrait()
    loaded.setup("cpu", folder)
    return loaded


def test_it_finds_the_person_that_selfie_finds(install: Install, published: Portrait, weights_dir: Path) -> None:
    loaded, selfie = engine(install(published)), Selfie()
    selfie.setup("cpu", weights_dir)
    found, expected = (each.predict(photo(), ()).values for each in (loaded, selfie))
    both, either = ((found >= 0.5) & (expected >= 0.5)).sum(), ((found >= 0.5) | (expected >= 0.5)).sum()
    assert 0.1 < expected.mean() < 0.9
    assert both / either >= 0.9  # the same weights, at 320 pixels instead of 256


def test_an_image_without_people_has_an_empty_matte(install: Install) -> None:
    net = Portrait()
    torch.nn.init.constant_(net.last.bias, -1000)
    found = engine(install(net)).predict(photo(), ()).values
    assert found.shape == photo().shape[:2]
    assert not found.any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (20, 30000), (7, 5), (480, 641)])
def test_images_of_any_size_have_a_matte(shape: tuple[int, int], install: Install) -> None:
    net = Portrait()
    torch.nn.init.constant_(net.last.bias, 3)  # subject everywhere, so that there is a second pass
    found = engine(install(net)).predict(np.full((*shape, 3), 200, np.uint8), ()).values
    assert found.dtype == np.float32
    assert 0 <= found.min() <= found.max() <= 1


def test_it_reports_the_sha256_of_its_weights(install: Install) -> None:
    folder = install(Portrait())
    data = (folder / named("portrait").file).read_bytes()
    assert engine(folder).weights_sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.skipif((BUNDLED / named("portrait").file).exists(), reason="weights come with the package")
def test_without_weights_it_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="maskdrop models import portrait"):
        engine(tmp_path)


def test_a_file_that_is_not_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_bytes(b"ONNX")
    import_file(named("portrait"), tmp_path / "mine.onnx", tmp_path / "weights", own=True)
    with pytest.raises(InvalidWeights, match="damaged"):
        engine(tmp_path / "weights")


def test_another_network_is_refused(install: Install) -> None:
    with pytest.raises(InvalidWeights, match="no matte"):
        engine(install(torch.nn.Conv2d(3, 1, 3)))


def test_weights_that_return_nan_are_refused(install: Install) -> None:
    net = Portrait()
    torch.nn.init.constant_(net.last.bias, float("nan"))
    with pytest.raises(InvalidWeights, match="no matte"):
        engine(install(net))
