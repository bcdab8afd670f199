"""Every network in every export format, compared with the network itself."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from cli.app import app  # noqa: E402
from sagemaker_model.engines.birefnet import VARIANTS  # noqa: E402
from sagemaker_model.export import formats as export  # noqa: E402
from sagemaker_model.imaging.pixels import Pixels  # noqa: E402
from sagemaker_model.nets.attention_unet import AttentionUNet  # noqa: E402
from sagemaker_model.weights.checkpoints import load_into, modnet_state  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights, NotInstalled  # noqa: E402
from tests.unit.sagemaker_model.nets import published_modnet  # noqa: E402

ROOT = Path(__file__).parents[4]
TFLITE_PYTHON = ROOT / ".venv-tflite" / "bin" / "python"
FORMATS = export.formats(TFLITE_PYTHON)
NETWORKS = [name for name in export.NETWORKS if name != "mask-rcnn" and name not in VARIANTS]
"""Mask R-CNN is tested with its training, BiRefNet with its engine."""

needs_litert = pytest.mark.skipif(not TFLITE_PYTHON.exists(), reason="needs the environment of `make tflite`")


def photos(count: int) -> list[Pixels]:
    """Different crops of the astronaut, HxWx3 uint8."""
    photo = cv2.imread(str(ROOT / "samples" / "default" / "astronaut.png"))[..., ::-1]
    return [np.ascontiguousarray(photo[8 * n : 8 * n + 300, 8 * n : 8 * n + 300]) for n in range(count)]


def network(name: str) -> torch.nn.Module:
    """The network with random weights."""
    torch.manual_seed(0)
    net = export.NETWORKS[name].build({})
    if name == "modnet":  # when untrained, its norms are identities
        load_into(net, modnet_state(published_modnet.state()))
    return net.eval()


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_float32_export_agrees_with_its_network(name: str, format_name: str, tmp_path: Path) -> None:
    exported = export.export(name, network(name), FORMATS[format_name], tmp_path, photos(2))
    assert exported.max_difference <= 1e-3
    assert exported.mean_difference <= 1e-4
    assert exported.iou > 0.999
    assert exported.bytes == exported.path.stat().st_size > 100_000
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}{FORMATS[format_name].suffix}"]


@pytest.mark.parametrize("format_name", ["onnx", "torchscript"])
def test_a_float32_export_accepts_any_size(format_name: str, tmp_path: Path) -> None:
    net = network("portrait")
    FORMATS[format_name].write(net, tmp_path / "net", [])
    for shape in ((3, 32, 32), (3, 96, 160)):
        x = np.random.default_rng(0).random(shape, np.float32)
        (result,), _ = FORMATS[format_name].run(tmp_path / "net", [x])
        with torch.inference_mode():
            assert np.abs(result - net(torch.from_numpy(x[None])).numpy()[0]).max() <= 1e-4


def test_an_int8_export_is_smaller_and_reports_its_difference(tmp_path: Path) -> None:
    net, images = network("portrait"), photos(2 * export.CALIBRATION_MIN)
    floats = export.export("portrait", net, FORMATS["onnx"], tmp_path, images)
    eight_bits = export.export("portrait", net, FORMATS["int8"], tmp_path, images)
    assert eight_bits.bytes < 0.8 * floats.bytes
    assert floats.mean_difference < eight_bits.mean_difference < 0.2


@needs_litert
@pytest.mark.parametrize("name", NETWORKS)
def test_a_tensorflow_lite_export_agrees_with_its_network(name: str, tmp_path: Path) -> None:
    exported = export.export(name, network(name), FORMATS["tflite"], tmp_path, photos(2))
    assert exported.max_difference <= 1e-3
    assert exported.iou > 0.999


# Errors


def test_int8_with_too_few_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(export.ExportFailed, match="16 images"):
        export.export("portrait", network("portrait"), FORMATS["int8"], tmp_path, photos(4))
    assert list(tmp_path.iterdir()) == []


def test_an_export_without_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(export.ExportFailed, match="No images"):
        export.export("portrait", network("portrait"), FORMATS["onnx"], tmp_path, [])


def test_tensorflow_lite_without_its_environment_is_reported(tmp_path: Path) -> None:
    tflite = export.formats(tmp_path / "python")["tflite"]
    with pytest.raises(NotInstalled, match="make tflite"):
        export.export("portrait", network("portrait"), tflite, tmp_path, photos(1))


def test_the_error_of_a_failing_converter_is_reported(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such operator' >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(export.ExportFailed, match="no such operator"):
        export.export("portrait", network("portrait"), export.formats(python)["tflite"], tmp_path, photos(1))


def test_an_unknown_network_raises_an_error_with_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(export.ExportFailed, match=r"'yolo'.*modnet, portrait, attention-unet"):
        export.load("yolo", tmp_path)


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save(network("portrait").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidWeights, match="not for MODNet"):
        export.load("modnet", tmp_path / "weights.pt")


def test_an_attention_unet_gets_the_size_of_its_weights(tmp_path: Path) -> None:
    torch.save(AttentionUNet(filters=4).state_dict(), tmp_path / "weights.pt")
    assert export.load("attention-unet", tmp_path / "weights.pt").last.in_channels == 4
    torch.save(network("portrait").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidWeights, match="not for AttentionUNet"):
        export.load("attention-unet", tmp_path / "weights.pt")


# The command


def test_the_command_writes_the_files_and_prints_their_iou(tmp_path: Path) -> None:
    weights, out = tmp_path / "weights.pt", tmp_path / "out"
    torch.save(network("portrait").state_dict(), weights)
    words = ["export", "portrait", str(weights), "--to", "onnx", "--to", "torchscript", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {"portrait.onnx", "portrait.torchscript"}
    assert "IoU" in done.output


def test_the_command_reports_errors_without_a_traceback(tmp_path: Path) -> None:
    for network, weights in (("yolo", "weights.pt"), ("portrait", "absent.pt")):
        done = CliRunner().invoke(app, ["export", network, weights, "--to", "onnx", "--out", str(tmp_path)])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit)
        assert "Traceback" not in done.output
