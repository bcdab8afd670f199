"""The predictor of a training run. tests/unit/sagemaker_model/training/test_mask_rcnn.py compares its IoU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("safetensors", reason="safetensors is not installed")

from sagemaker_model.data.records import InvalidData  # noqa: E402 - needs torch
from sagemaker_model.evaluation.cases import read_dataset  # noqa: E402
from sagemaker_model.evaluation.trained import TrainedNetwork  # noqa: E402
from sagemaker_model.training.train import BEST, Data, train  # noqa: E402
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
