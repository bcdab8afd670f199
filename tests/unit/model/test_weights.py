from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sagemaker_model.weights import SELFIE, InvalidWeights, fetch, read


def test_weights_that_are_there_are_not_fetched_again(weights_dir: Path) -> None:
    nowhere = replace(SELFIE, requirement="no such requirement")
    assert fetch(nowhere, weights_dir) == weights_dir / SELFIE.name


def test_weights_of_another_hash_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / SELFIE.name).write_bytes(b"other")
    with pytest.raises(InvalidWeights, match="SHA-256"):
        read(SELFIE, tmp_path)


def test_missing_weights_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="fetch-weights"):
        read(SELFIE, tmp_path)


def test_a_failed_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InvalidWeights, match="could not download"):
        fetch(replace(SELFIE, requirement="./no-such-wheel"), tmp_path)
    assert list(tmp_path.iterdir()) == []
