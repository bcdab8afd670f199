"""Fixtures: the weights folder, with `selfie` downloaded once into the repository's .local, and the engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagemaker_model.engines.base import Engine, load_all
from sagemaker_model.weights.store import fetch, named

WEIGHTS_DIR = Path(__file__).parents[3] / ".local" / "weights"


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    fetch(named("selfie"), WEIGHTS_DIR)
    return WEIGHTS_DIR


@pytest.fixture(scope="session")
def engines(weights_dir: Path) -> dict[str, Engine]:
    return load_all("cpu", weights_dir)
