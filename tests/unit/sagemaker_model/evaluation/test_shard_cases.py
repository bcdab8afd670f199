"""Shards as the data of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sagemaker_model.data.folders import entries
from sagemaker_model.data.prepare import prepare
from sagemaker_model.data.recipe import Recipe
from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.cases import Dataset, read_alpha, read_dataset
from sagemaker_model.evaluation.run import evaluate, folder_predictor
from tests.unit.sagemaker_model.data.datasets import disc
from tests.unit.sagemaker_model.data.datasets import folder as write_folder


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    rows = [
        {"id": f"p{number}", "split": "train" if number == 3 else "val", "part": "abc"[number % 3]}
        for number in range(4)
    ]
    masks = {row["id"]: disc(radius=30 + number) for number, row in enumerate(rows)}
    source = write_folder(tmp_path / "data", rows, masks)
    prepare(entries(source), Recipe.of("folders"), tmp_path / "shards")
    return tmp_path / "shards"


def parts(dataset: Dataset) -> dict[str, str]:
    return {case.id: case.part for case in dataset.cases}


def test_a_folder_of_shards_has_the_cases_of_its_split(shards: Path) -> None:
    val = read_dataset(shards, "val")
    assert parts(val) == {"p0": "a", "p1": "b", "p2": "c"}
    assert parts(read_dataset(shards, "train")) == {"p3": "a"}
    assert parts(read_dataset(shards, "val", parts=["b"])) == {"p1": "b"}
    assert list(parts(read_dataset(shards, "val", limit=2))) == ["p0", "p1"]
    assert set(parts(read_dataset(shards, "val", by="split")).values()) == {"val"}
    assert read_dataset(shards, "val").sha256 == val.sha256
    masks = [read_alpha(case.mask) for case in val.cases]
    assert [int((mask > 0).sum()) for mask in masks] == [int((disc(radius=30 + n) > 0).sum()) for n in range(3)]


def test_predictions_are_scored_against_shards(shards: Path) -> None:
    dataset = read_dataset(shards, "val")
    results = list(evaluate(dataset.cases, folder_predictor(dataset.cases[0].mask.parent), workers=1, folder=None))
    assert np.allclose([result.scores.iou for result in results], 1)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"split": "test"}, "no shards of the split 'test'; it has: train, val"),
        ({"split": "val", "by": "colour"}, "'colour'"),
        ({"split": "val", "parts": ["z"]}, "it has: a, b, c"),
    ],
)
def test_a_selection_without_cases_names_what_there_is(shards: Path, selection: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        read_dataset(shards, **selection)  # type: ignore[arg-type]
