from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sagemaker_model.evaluation.made import a_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return a_dataset(tmp_path / "data")
