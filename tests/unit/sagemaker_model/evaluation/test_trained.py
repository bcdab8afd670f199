"""The predictor of a training run. tests/unit/sagemaker_model/training/test_mask_rcnn.py compares its IoU."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from maskdrop.settings import InvalidSettings  # noqa: E402
from sagemaker_model.data.records import InvalidData  # noqa: E402 - needs torch
from sagemaker_model.evaluation.cases import read_dataset  # noqa: E402
from sagemaker_model.evaluation.trained import TrainedNetwork  # noqa: E402
from sagemaker_model.training.train import AVERAGE, BEST, Data, train  # noqa: E402
from sagemaker_model.weights.store import digest  # noqa: E402
from tests.unit.sagemaker_model.training.conftest import TINY, data  # noqa: E402, F401 - a fixture


def test_a_trained_network_predicts_an_alpha_of_the_size_of_the_image(data: Path, tmp_path: Path) -> None:  # noqa: F811
    train("attention-unet", Data(train=data, val=data), tmp_path / "run", replace(TINY, steps=2))
    network = TrainedNetwork(tmp_path / "run", "cpu", 1)
    alpha = network(read_dataset(data, "val").cases[0])
    assert (alpha.shape, alpha.dtype) == ((40, 48), np.uint8)
    assert network.weights_sha256 == digest(tmp_path / "run" / BEST)


def test_a_folder_without_a_training_run_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="not the folder of a training run"):
        TrainedNetwork(tmp_path, "cpu", 1)


def test_a_file_of_weights_is_read_with_the_settings_of_its_run_or_with_those_given(
    data: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    settings = replace(TINY, steps=2)
    train("attention-unet", Data(train=data, val=data), tmp_path / "run", settings)
    case = read_dataset(data, "val").cases[0]
    of_run = TrainedNetwork(tmp_path / "run" / AVERAGE, "cpu", 1)(case)
    alone = Path(shutil.copy(tmp_path / "run" / AVERAGE, tmp_path / "alone.safetensors"))
    given = {"side": str(settings.side), "filters": str(settings.filters)}
    assert np.array_equal(TrainedNetwork(alone, "cpu", 1, "attention-unet", given)(case), of_run)
    with pytest.raises(InvalidData, match="--network"):
        TrainedNetwork(alone, "cpu", 1)
    with pytest.raises(InvalidSettings, match="network must be one of"):
        TrainedNetwork(alone, "cpu", 1, "unet")
    with pytest.raises(InvalidSettings, match="maskdrop detector evaluate"):
        TrainedNetwork(alone, "cpu", 1, "detector")
