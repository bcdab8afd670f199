from __future__ import annotations

from pathlib import Path

import pytest

from maskdrop.catalog import DEFAULT_ENGINE, ENGINES
from sagemaker_model.engines.base import load, load_all
from sagemaker_model.weights import store as weights
from sagemaker_model.weights.store import InvalidWeights


def test_an_engine_without_weights_is_not_loaded(tmp_path: Path) -> None:
    assert list(load([ENGINES["modnet"], ENGINES["grabcut"]], "cpu", tmp_path)) == ["grabcut"]


def test_damaged_weights_raise_an_error(tmp_path: Path) -> None:
    (tmp_path / weights.named("selfie").file).write_bytes(b"damaged")
    with pytest.raises(InvalidWeights):
        load([ENGINES["selfie"], ENGINES["grabcut"]], "cpu", tmp_path)


def test_the_default_engine_loads_from_the_package_without_downloads(tmp_path: Path) -> None:
    assert DEFAULT_ENGINE["cutout"] in load_all("cpu", tmp_path)


def test_a_missing_default_engine_raises_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    with pytest.raises(weights.NotInstalled, match="portrait"):
        load_all("cpu", tmp_path)
