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
from tests.contract.test_model_server import Server

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("tflite", reason="tflite is not installed")

HEIGHT, WIDTH = 120, 160

TRAIN, VAL = 24, 8


def disc(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (image HxWx3, mask HxW) of a light disc on dark noise, which no trained network detects as a person."""
    random = np.random.default_rng(number)
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    center = int(random.integers(50, WIDTH - 50)), int(random.integers(45, HEIGHT - 45))
    cv2.circle(mask, center, int(random.integers(25, 40)), 255, cv2.FILLED)
    image = random.integers(0, 90, (HEIGHT, WIDTH, 3), np.uint8)
    image[mask > 0] += 130
    return image, mask


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set folder with images, masks and manifest."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = ["id,split"]
    for number in range(TRAIN + VAL):
        image, mask = disc(number)
        cv2.imwrite(str(folder / "images" / f"disc{number}.jpg"), image)
        cv2.imwrite(str(folder / "masks" / f"disc{number}.png"), mask)
        rows.append(f"disc{number},{'train' if number < TRAIN else 'val'}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


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
    maskdrop("promote", exported / "portrait.onnx", "--data", folder, "--folder", weights, "--record", tmp_path / "log")
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
