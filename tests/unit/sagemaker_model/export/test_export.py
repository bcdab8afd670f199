"""Every network in every form, beside itself."""

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
from sagemaker_model.export import formats as export  # noqa: E402
from sagemaker_model.imaging.pixels import Pixels  # noqa: E402
from sagemaker_model.nets.attention_unet import AttentionUNet  # noqa: E402
from sagemaker_model.weights.checkpoints import load_into, modnet_state  # noqa: E402
from sagemaker_model.weights.store import InvalidWeights, NotInstalled  # noqa: E402
from tests.unit.sagemaker_model.nets import published_modnet  # noqa: E402

ROOT = Path(__file__).parents[4]
TFLITE_PYTHON = ROOT / ".venv-tflite" / "bin" / "python"
FORMS = export.forms(TFLITE_PYTHON)

needs_litert = pytest.mark.skipif(not TFLITE_PYTHON.exists(), reason="`make tflite` was not run")


def photos(count: int) -> list[Pixels]:
    """Pieces of the astronaut, each another."""
    photo = cv2.imread(str(ROOT / "samples" / "default" / "astronaut.png"))[..., ::-1]
    return [np.ascontiguousarray(photo[8 * n : 8 * n + 300, 8 * n : 8 * n + 300]) for n in range(count)]


def network(name: str) -> torch.nn.Module:
    """With weights of any kind."""
    torch.manual_seed(0)
    net = export.NETWORKS[name].make({})
    if name == "modnet":  # new, its norms do nothing
        load_into(net, modnet_state(published_modnet.state()))
    return net.eval()


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
@pytest.mark.parametrize("name", export.NETWORKS)
def test_in_floats_it_agrees_with_its_network(name: str, form: str, tmp_path: Path) -> None:
    made = export.export(name, network(name), FORMS[form], tmp_path, photos(2))
    assert made.largest <= 1e-3
    assert made.mean <= 1e-4
    assert made.iou > 0.999
    assert made.bytes == made.path.stat().st_size > 100_000
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}{FORMS[form].suffix}"]


@pytest.mark.parametrize("form", ["onnx", "torchscript"])
def test_in_floats_it_takes_any_size_and_batch(form: str, tmp_path: Path) -> None:
    net = network("portrait")
    FORMS[form].write(net, tmp_path / "net", [])
    for shape in ((3, 32, 32), (3, 96, 160)):
        x = np.random.default_rng(0).random(shape, np.float32)
        (found,), _ = FORMS[form].mattes(tmp_path / "net", [x])
        with torch.inference_mode():
            assert np.abs(found - net(torch.from_numpy(x[None])).numpy()[0]).max() <= 1e-4


def test_in_eight_bits_it_is_smaller_and_its_distance_is_told(tmp_path: Path) -> None:
    net, pictures = network("portrait"), photos(2 * export.CALIBRATION_MIN)
    floats = export.export("portrait", net, FORMS["onnx"], tmp_path, pictures)
    eight_bits = export.export("portrait", net, FORMS["int8"], tmp_path, pictures)
    assert eight_bits.bytes < 0.8 * floats.bytes
    assert floats.mean < eight_bits.mean < 0.2


@needs_litert
@pytest.mark.parametrize("name", export.NETWORKS)
def test_in_tensorflow_lite_it_agrees_with_its_network(name: str, tmp_path: Path) -> None:
    made = export.export(name, network(name), FORMS["tflite"], tmp_path, photos(2))
    assert made.largest <= 1e-3
    assert made.iou > 0.999


def test_what_agrees_in_part_is_told_in_figures() -> None:
    ones, half = np.ones((1, 2, 2), np.float32), np.array([[[1, 1], [0, 0]]], np.float32)
    assert export.iou(ones, half) == 0.5
    assert export.iou(1 - ones, 1 - ones) == 1


# What it refuses


def test_too_few_pictures_give_no_eight_bits(tmp_path: Path) -> None:
    with pytest.raises(export.ExportFailed, match="16 images"):
        export.export("portrait", network("portrait"), FORMS["int8"], tmp_path, photos(4))
    assert list(tmp_path.iterdir()) == []


def test_without_pictures_there_is_nothing_to_compare_on(tmp_path: Path) -> None:
    with pytest.raises(export.ExportFailed, match="no image"):
        export.export("portrait", network("portrait"), FORMS["onnx"], tmp_path, [])


def test_without_its_environment_there_is_no_tensorflow_lite(tmp_path: Path) -> None:
    form = export.forms(tmp_path / "python")["tflite"]
    with pytest.raises(NotInstalled, match="make tflite"):
        export.export("portrait", network("portrait"), form, tmp_path, photos(1))


def test_a_converter_that_fails_is_said(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no such operator' >&2; exit 1\n")
    python.chmod(0o755)
    with pytest.raises(export.ExportFailed, match="no such operator"):
        export.export("portrait", network("portrait"), export.forms(python)["tflite"], tmp_path, photos(1))


def test_an_unknown_network_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(export.ExportFailed, match=r"'yolo'.*modnet, portrait, attention-unet"):
        export.load("yolo", tmp_path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(network("portrait").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidWeights, match="not for MODNet"):
        export.load("modnet", tmp_path / "weights.pt")


def test_an_attention_unet_is_as_large_as_its_weights(tmp_path: Path) -> None:
    torch.save(AttentionUNet(filters=4).state_dict(), tmp_path / "weights.pt")
    assert export.load("attention-unet", tmp_path / "weights.pt").last.in_channels == 4
    torch.save(network("portrait").state_dict(), tmp_path / "weights.pt")
    with pytest.raises(InvalidWeights, match="not for AttentionUNet"):
        export.load("attention-unet", tmp_path / "weights.pt")


# The command


def test_the_command_makes_the_files_and_says_how_far_they_are(tmp_path: Path) -> None:
    weights, out = tmp_path / "weights.pt", tmp_path / "out"
    torch.save(network("portrait").state_dict(), weights)
    words = ["export", "portrait", str(weights), "--to", "onnx", "--to", "torchscript", "--out", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert {path.name for path in out.iterdir()} == {"portrait.onnx", "portrait.torchscript"}
    assert "IoU" in done.output


def test_the_command_says_what_is_wrong_in_one_sentence(tmp_path: Path) -> None:
    for network, weights in (("yolo", "weights.pt"), ("portrait", "absent.pt")):
        done = CliRunner().invoke(app, ["export", network, weights, "--to", "onnx", "--out", str(tmp_path)])
        assert done.exit_code == 1
        assert isinstance(done.exception, SystemExit)
        assert "Traceback" not in done.output
