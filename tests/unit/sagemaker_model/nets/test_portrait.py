"""Portrait compared with the published graph, which OpenCV runs."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from sagemaker_model.nets.portrait import Portrait  # noqa: E402
from sagemaker_model.weights.checkpoints import MismatchedWeights, NotWeights, load_into  # noqa: E402 - they need torch
from sagemaker_model.weights.published import portrait_state  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights, NotInstalled, named  # noqa: E402

SAMPLES = sorted((Path(__file__).parents[4] / "samples").glob("*/*.png"))


@pytest.fixture(scope="module")
def published(weights_dir: Path) -> Path:
    pytest.importorskip("tflite", reason="tflite is not installed")
    return weights_dir / named("selfie").file


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_it_has_as_many_parameters_as_the_published_one() -> None:
    assert sum(parameter.numel() for parameter in Portrait().parameters()) == 106_401


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
@torch.inference_mode()
def test_with_the_published_weights_its_matte_is_that_of_the_published_graph(sample: Path, published: Path) -> None:
    net = Portrait()
    load_into(net, portrait_state(published))
    photo = cv2.resize(cv2.imread(str(sample)), (256, 256), interpolation=cv2.INTER_AREA)
    x = photo[..., ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    graph = cv2.dnn.readNetFromTFLite(str(published))
    graph.setInput(x)
    expected = graph.forward().reshape(256, 256)
    assert expected.std() > 0.1  # a constant matte would make the comparison meaningless
    assert np.abs(net(torch.from_numpy(x))[0, 0].numpy() - expected).max() <= 1e-3


@pytest.mark.parametrize("size", [(32, 32), (96, 160), (384, 384)])
@torch.inference_mode()
def test_a_matte_has_the_size_of_its_image(size: tuple[int, int]) -> None:
    matte = Portrait()(images(2, 3, *size))
    assert matte.shape == (2, 1, *size)
    assert 0 <= matte.min() < matte.max() <= 1


@torch.inference_mode()
def test_the_matte_is_the_sigmoid_of_the_logits() -> None:
    net, x = Portrait(), images(1, 3, 64, 64)
    assert torch.equal(net(x), torch.sigmoid(net.logits(x)))


@torch.inference_mode()
def test_an_image_has_the_same_matte_in_a_batch_as_on_its_own() -> None:
    net, x = Portrait(), images(3, 3, 64, 64)
    assert torch.allclose(net(x)[1:2], net(x[1:2]), rtol=0, atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    net = Portrait()
    net.logits(images(2, 3, 64, 64)).mean().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


# The published file


def test_a_missing_file_is_an_error() -> None:
    with pytest.raises(InvalidWeights, match="cannot be read"):
        portrait_state(Path("absent.tflite"))


@pytest.mark.parametrize("kept", [0, 3, 100, 100_000, 200_000])
def test_a_truncated_file_is_refused(kept: int, published: Path, tmp_path: Path) -> None:
    path = tmp_path / "truncated.tflite"
    path.write_bytes(published.read_bytes()[:kept])
    with pytest.raises(NotWeights, match="damaged"):
        portrait_state(path)


def test_a_file_of_another_kind_is_refused(published: Path, tmp_path: Path) -> None:
    path = tmp_path / "photo.tflite"
    path.write_bytes(SAMPLES[0].read_bytes())
    with pytest.raises(NotWeights, match="file identifier"):
        portrait_state(path)


def test_the_graph_of_another_network_is_refused(published: Path, tmp_path: Path) -> None:
    def shape(*sides: int) -> bytes:
        return np.array(sides, "<i4").tobytes()

    path = tmp_path / "another.tflite"
    path.write_bytes(published.read_bytes().replace(shape(16, 3, 3, 3), shape(3, 3, 3, 16)))
    with pytest.raises(MismatchedWeights, match="another network"):
        portrait_state(path)


def test_without_the_package_tflite_the_error_names_it(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(NotInstalled, match="tflite"):
        portrait_state(published)
