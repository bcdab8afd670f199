"""The commands from photos and masks to a serving engine: prepare, train, export, promote, evaluate."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cli.app import app
from sagemaker_model.weights.store import named
from tests.contract.discs import HEIGHT, TRAIN, VAL, WIDTH, disc, write_discs
from tests.contract.test_model_server import Server

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("tflite", reason="tflite is not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set folder with images, masks and manifest."""
    return write_discs(tmp_path / "data")


@pytest.fixture
def weights(tmp_path: Path, weights_dir: Path) -> Path:
    """A weights folder that contains the weights of `selfie`."""
    (tmp_path / "weights").mkdir()
    shutil.copy(weights_dir / named("selfie").file, tmp_path / "weights")
    return tmp_path / "weights"


def maskdrop(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_an_engine_trained_from_photos_and_masks_serves_requests(folder: Path, weights: Path, tmp_path: Path) -> None:
    shards, run, exported, ious = (tmp_path / name for name in ("shards", "run", "exported", "ious.csv"))
    maskdrop("data", "prepare", "folders", folder, shards, "--min-side", 64)
    small = ("side=160", "batch=4", "steps=80", "lr=0.003", "warmup=5", "ema=0.9", "validate_every=40", "workers=0")
    maskdrop("train", "portrait", *small, "--data", shards, "--out", run, "--start", weights / named("selfie").file)
    maskdrop("export", "portrait", run / "best.safetensors", "--to", "onnx", "--out", exported)
    maskdrop("evaluate", "--trained", run / "best.safetensors", "--data", shards, "--folder", weights)
    maskdrop("promote", exported / "portrait.onnx", "--data", shards, "--folder", weights, "--record", tmp_path / "log")
    maskdrop("evaluate", "--engine", "portrait", "--data", folder, "--folder", weights, "--iou-csv", ious)
    with ious.open(newline="") as file:
        scores = {id_: float(iou) for id_, iou in csv.reader(file)}
    assert list(scores) == [f"disc{number}" for number in range(TRAIN, TRAIN + VAL)]
    assert min(scores.values()) > 0.8

    image, mask = disc(1000)
    server = Server(weights)
    try:
        server.wait()
        response = server.send(cv2.imencode(".png", image)[1].tobytes(), engine="portrait")
    finally:
        server.stop()
    assert response.status_code == 200
    cut_out = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert cut_out.shape == (HEIGHT, WIDTH, 4)
    assert np.abs(cut_out[..., 3].astype(int) - mask).mean() < 0.1 * 255
