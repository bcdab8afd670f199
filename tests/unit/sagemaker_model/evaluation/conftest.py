from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.sagemaker_model.evaluation.synthetic import write_dataset


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data")
