"""Detectors in the ONNX form that the detector serves, compared with their networks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from cli.app import app  # noqa: E402 - the imports below need torch
from sagemaker_model.detectors.trained import Trained  # noqa: E402
from sagemaker_model.engines.onnx_session import onnx_session  # noqa: E402
from sagemaker_model.export.detector import Scored, export, load  # noqa: E402
from sagemaker_model.nets.tiny_detector import TinyDetector  # noqa: E402
from sagemaker_model.training.train import save_weights  # noqa: E402
from sagemaker_model.weights.checkpoints import NotWeights  # noqa: E402
from sagemaker_model.weights.store import import_file, named  # noqa: E402
from tests.unit.sagemaker_model.detectors.shapes import NAMES as SHAPES  # noqa: E402
from tests.unit.sagemaker_model.detectors.shapes import scene, write_shapes  # noqa: E402

NAMES = ("zebra", "airplane")


def write_weights(path: Path, network: str = "detector") -> Path:
    """Writes untrained weights as a training run does."""
    torch.manual_seed(0)
    if network == "rt-detr":
        pytest.importorskip("transformers", reason="transformers is not installed")
        from tests.unit.sagemaker_model.nets.small_rt_detr import small_rt_detr

        net = small_rt_detr(*NAMES)
    else:
        net = TinyDetector(NAMES, 4)
    save_weights(net, path, {**net.metadata, "side": "64"})
    return path


def images(count: int) -> list[np.ndarray]:
    return [scene(number)[0] for number in range(count)]


@pytest.mark.parametrize("network", ["detector", "rt-detr"])
def test_an_export_agrees_with_its_network_for_any_batch(network: str, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "best.safetensors", network)
    exported = export(network, weights, tmp_path / "out", images(3))
    assert exported.path.name == "detector.onnx"
    assert exported.max_difference < 1e-4
    assert exported.iou > 0.99
    session, net = onnx_session(exported.path, 1), Scored(load(network, weights)[0]).eval()
    x = torch.rand(3, 3, 64, 64)
    boxes, scores = session.run(["boxes", "scores"], {"picture": x.numpy()})
    with torch.inference_mode():
        expected_boxes, expected = net(x)
    assert boxes.shape == expected_boxes.shape
    assert np.allclose(np.sort(scores.max(2)), np.sort(expected.numpy().max(2)), atol=1e-4)
    assert session.get_modelmeta().custom_metadata_map == {"names": '["zebra", "airplane"]', "side": "64"}


def test_an_exported_file_is_served(tmp_path: Path) -> None:
    path = export("detector", write_weights(tmp_path / "best.safetensors"), tmp_path / "out", images(1)).path
    import_file(named("detector"), path, tmp_path / "weights", own=True)
    detector = Trained()
    detector.setup("cpu", tmp_path / "weights")
    assert detector.labels == NAMES
    assert len(detector.detect(images(1)[0], (), 1e-4).labels) > 0


def test_weights_without_names_are_rejected(tmp_path: Path) -> None:
    save_weights(TinyDetector(NAMES, 4), tmp_path / "plain.safetensors")
    torch.save(TinyDetector(NAMES, 4).state_dict(), tmp_path / "other.pt")
    for name, message in (("plain.safetensors", "header lacks 'names'"), ("other.pt", "cannot be read")):
        with pytest.raises(NotWeights, match=message):
            load("detector", tmp_path / name)


def test_the_command_exports_to_onnx_only(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "best.safetensors")
    cv2.imwrite(str(tmp_path / "scene.png"), images(1)[0])
    words = ["export", "detector", str(weights), "--out", str(tmp_path / "out"), "--compare", str(tmp_path), "--to"]
    done = CliRunner().invoke(app, [*words, "onnx"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "detector.onnx").exists()
    refused = CliRunner().invoke(app, [*words, "int8"])
    assert refused.exit_code == 1
    assert "onnx only" in refused.output


def test_the_commands_train_export_and_install_a_detector(tmp_path: Path) -> None:
    data, run, weights = write_shapes(tmp_path / "data", 4, 2), tmp_path / "run", tmp_path / "weights"
    settings = ("steps=2", "side=64", "batch=2", "filters=4", "workers=0", "threads=1")
    commands = (
        ("train", "detector", *settings, "--data", data, "--out", run),
        ("export", "detector", run / "best.safetensors", "--to", "onnx", "--out", run, "--compare", data),
        ("models", "import", "detector", run / "detector.onnx", "--own", "--folder", weights),
    )
    outputs = []
    for words in commands:
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        outputs.append(done.output)
    assert "mAP" in outputs[0]
    detector = Trained()
    detector.setup("cpu", weights)
    assert detector.labels == SHAPES
