"""Mask R-CNN from training to its ONNX file, on made images: light discs on dark noise."""

from __future__ import annotations

import csv
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")

from cli.app import app  # noqa: E402 - needs torch
from sagemaker_model.engines.onnx_session import onnx_session  # noqa: E402
from sagemaker_model.export import formats  # noqa: E402
from sagemaker_model.training.objectives import objective_of  # noqa: E402
from sagemaker_model.training.settings import SETTINGS  # noqa: E402
from sagemaker_model.training.train import BEST, LAST, Data, train  # noqa: E402
from sagemaker_model.weights.checkpoints import load_checkpoint  # noqa: E402
from sagemaker_model.weights.store import NotInstalled  # noqa: E402
from tests.unit.sagemaker_model.training import torchvision_operators  # noqa: E402
from tests.unit.sagemaker_model.training.conftest import write, write_manifest  # noqa: E402

ROOT = Path(__file__).parents[4]

SIDE, TRAIN, VAL = 64, 8, 4

SMALL = replace(
    SETTINGS["mask-rcnn"], side=SIDE, lr=0.01, steps=20, schedule="constant", clip=20.0, validate_every=10, log_every=1,
    workers=0, threads=1,
)  # fmt: skip
"""The recipe (SGD, batches of 1) on small images. The heads start from random weights instead of published ones, so
that gradients are larger; rate and limit are, too."""


def disc(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (image HxWx3, mask HxW)."""
    random = np.random.default_rng(number)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    centre = int(random.integers(24, 40)), int(random.integers(24, 40))
    cv2.circle(mask, centre, int(random.integers(14, 22)), 255, cv2.FILLED)
    image = random.integers(0, 90, (SIDE, SIDE, 3), np.uint8)
    image[mask > 0] += 130
    return image, mask


def published_names(state: dict[str, Any]) -> dict[str, Any]:
    """Returns the state dict with the names of the file that torchvision published in 2019."""
    replaced = {"rpn.head.conv.0.0.": "rpn.head.conv."}
    replaced |= {
        f"roi_heads.mask_head.{number}.0.": f"roi_heads.mask_head.mask_fcn{number + 1}." for number in range(4)
    }
    for blocks in ("inner", "layer"):
        for number in range(4):
            replaced[f"backbone.fpn.{blocks}_blocks.{number}.0."] = f"backbone.fpn.{blocks}_blocks.{number}."
    old = {}
    for name, tensor in state.items():
        for new_part, old_part in replaced.items():
            name = name.replace(new_part, old_part)
        old[name] = tensor
    return old


def random_weights() -> dict[str, Any]:
    """Returns weights of torchvision's network for 91 classes: random, with features of the mean 0 and deviation 1."""
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    net = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    images = torch.stack([torch.from_numpy(disc(number)[0]).permute(2, 0, 1) for number in range(8)]).float() / 255
    with torch.no_grad():
        images = torch.stack([net.transform.normalize(image) for image in images])
        net.backbone.train()(images)
        features = net.backbone.eval()(images)
        for level, block in zip(features.values(), net.backbone.fpn.layer_blocks, strict=False):
            block[0].weight /= level.std()
            block[0].bias /= level.std()
    return net.state_dict()


@pytest.fixture(scope="module", autouse=True)
def _torchvision() -> None:
    torchvision_operators.import_torchvision()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with data/ and the initial weights start.pth. Deletes everything in it: a run has 0.8 GB."""
    folder = tmp_path_factory.mktemp("mask-rcnn")
    for name in ("images", "masks"):
        (folder / "data" / name).mkdir(parents=True)
    for number in range(TRAIN + VAL):
        write(folder / "data", f"disc{number}", *disc(number))
    write_manifest(folder / "data", {f"disc{n}": "train" if n < TRAIN else "val" for n in range(TRAIN + VAL)})
    torch.save(published_names(random_weights()), folder / "start.pth")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def history(folder: Path) -> list[dict[str, Any]]:
    """The history of an uninterrupted run in run/."""
    lines: list[dict[str, Any]] = []
    data = Data(train=folder / "data", val=folder / "data")
    train("mask-rcnn", data, folder / "run", SMALL, start=folder / "start.pth", report=lines.append)
    return lines


def maskdrop(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_loss_of_the_heads_falls_and_other_layers_stay_frozen(history: list[dict[str, Any]], folder: Path) -> None:
    losses = [line["loss"] for line in history if "loss" in line]
    assert mean(losses[-5:]) < 0.75 * mean(losses[:5])
    state = load_checkpoint(folder / "run" / BEST)
    start = objective_of("mask-rcnn", SMALL, folder / "start.pth").net.state_dict()
    changed = {name for name, tensor in state.items() if not torch.equal(tensor, start[name])}
    assert {name.split(".")[0] for name in changed} == {"roi_heads"}
    assert {name.split(".")[1] for name in changed} == {"box_head", "box_predictor", "mask_head", "mask_predictor"}


def test_a_killed_run_is_resumed_and_ends_with_the_weights_of_an_uninterrupted_one(
    history: list[dict[str, Any]], folder: Path
) -> None:
    words = [f"--{name}={str(value).lower()}" for name, value in asdict(SMALL).items()]
    command = [sys.executable, "-m", torchvision_operators.__name__, "--network=mask-rcnn", *words]
    paths = {"data": folder / "data", "out": folder / "killed", "start": folder / "start.pth"}
    command += [f"--{name}={path}" for name, path in paths.items()]
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE
    )
    for line in process.stdout or ():
        if json.loads(line)["step"] >= 12:
            process.send_signal(signal.SIGKILL)
            break
    with process:
        assert process.wait() == -signal.SIGKILL
    data = Data(train=paths["data"], val=paths["data"])
    steps: list[int] = []
    train(
        "mask-rcnn", data, paths["out"], SMALL, start=paths["start"], resume=True,
        report=lambda line: steps.append(line["step"]),
    )  # fmt: skip
    assert steps[0] == 11  # after the checkpoint of step 10
    resumed, uninterrupted = (
        torch.load(folder / run / LAST, weights_only=True)["objective"] for run in ("killed", "run")
    )
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(tensor, uninterrupted[name]) for name, tensor in resumed.items())
    assert (folder / "killed" / BEST).read_bytes() == (folder / "run" / BEST).read_bytes()


def test_a_training_run_is_evaluated_to_a_file_of_ious(history: list[dict[str, Any]], folder: Path) -> None:
    maskdrop("evaluate", "--trained", folder / "run", "--data", folder / "data", "--iou-csv", folder / "ious.csv")
    with (folder / "ious.csv").open(newline="") as file:
        ious = {name: float(iou) for name, iou in csv.reader(file)}
    assert list(ious) == [f"disc{number}" for number in range(TRAIN, TRAIN + VAL)]
    best = max(line["iou"] for line in history if "iou" in line)
    assert mean(ious.values()) == pytest.approx(best, abs=0.02)  # mattes of validation are not rounded to 8 bits
    assert best > 0.35  # a mask of the whole image has 0.25


def test_the_exported_onnx_file_agrees_with_the_network_at_any_size(
    history: list[dict[str, Any]], folder: Path
) -> None:
    weights, compared = folder / "run" / BEST, folder / "compared"
    compared.mkdir()
    shutil.copy(folder / "data" / "images" / "disc0.png", compared)
    maskdrop("export", "mask-rcnn", weights, "--to", "onnx", "--out", folder, "--compare", compared)
    session, net = onnx_session(folder / "mask-rcnn.onnx", threads=1), formats.load("mask-rcnn", weights)
    for number, (height, width) in enumerate(((SIDE, SIDE), (96, 80), (51, 70)), TRAIN):
        image = cv2.resize(disc(number)[0], (width, height))
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            expected = net(x).numpy()
        (matte,) = session.run([formats.OUTPUT_NAME], {formats.INPUT_NAME: x.numpy()})
        assert matte.shape == expected.shape == (1, 1, height, width)
        assert expected.max() > 0.5
        assert np.abs(matte - expected).max() < 1e-3


def test_the_matte_without_a_detection_is_empty(history: list[dict[str, Any]], folder: Path) -> None:
    net = formats.load("mask-rcnn", folder / "run" / BEST)
    net.roi_heads.score_thresh = 1.0
    with torch.inference_mode():
        mattes = net(torch.rand(2, 3, 40, 50))
    assert mattes.shape == (2, 1, 40, 50)
    assert not mattes.any()


def test_other_export_formats_are_rejected(tmp_path: Path) -> None:
    net = formats.NETWORKS["mask-rcnn"].build({})
    with pytest.raises(formats.ExportFailed, match="ONNX"):
        formats.export("mask-rcnn", net, formats.formats(tmp_path)["torchscript"], tmp_path, [disc(0)[0]])


def test_published_weights_are_loaded_and_the_layers_of_their_91_classes_replaced(folder: Path) -> None:
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    published = torch.load(folder / "start.pth", weights_only=True)
    theirs = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    theirs.load_state_dict(published)  # renames the entries itself
    expected, state = theirs.state_dict(), objective_of("mask-rcnn", SMALL, folder / "start.pth").net.state_dict()
    new = {name for name, tensor in state.items() if not torch.equal(tensor, expected.get(name, torch.tensor(0)))}
    last = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    assert new == {"side"} | {f"roi_heads.{layer}.{kind}" for layer in last for kind in ("weight", "bias")}
    assert len(state["roi_heads.box_predictor.cls_score.bias"]) == 2


def test_mask_rcnn_without_torchvision_raises_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sagemaker_model.nets.mask_rcnn", "torchvision.models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision.models.detection", None)
    with pytest.raises(NotInstalled, match="needs torchvision"):
        objective_of("mask-rcnn", SMALL, None)


def test_our_roi_align_agrees_with_the_python_form_of_torchvision() -> None:
    theirs = importlib.import_module("torchvision.ops.roi_align")._roi_align.__wrapped__
    features = torch.randn(2, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    rois = torch.tensor([[0, 2.0, 3, 40, 30], [1, 0, 0, 50, 35], [1, 5, 5, 7, 6]])
    arguments = (features, rois, 0.25, 7, 5, 2, False)
    assert torch.allclose(torchvision_operators.roi_align(*arguments), theirs(*arguments), atol=1e-5)
