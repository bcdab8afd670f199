from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from maskdrop import catalog
from sagemaker_model.evaluation.cases import InvalidData
from sagemaker_model.evaluation.promote import NotPromoted, promote, weights_for
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import Fault
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import InvalidWeights
from tests.unit.sagemaker_model.evaluation.made import Finder, a_run, disc, shifted

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Gate:
    """A gate with a record of its own. installed: how often something was."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.installed = 0

    def __call__(self, new: Run, current: Run) -> None:
        promote(new, current, self.record, self._install, NOW)

    def _install(self) -> None:
        self.installed += 1

    def entries(self) -> list[dict]:
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "promotions.jsonl")


def a_ghost(found: Pixels) -> Pixels:
    return found if found.any() else disc(20)


def test_the_better_one_is_installed_and_recorded(data: Path, gate: Gate) -> None:
    new, old = a_run(data, Finder(weights_sha256="cd" * 32), "new"), a_run(data, Finder(shifted(2)), "old")
    gate(new, old)
    assert gate.installed == 1
    (entry,) = gate.entries()
    assert entry["date"] == "2026-11-21T12:00:00+00:00"
    assert (entry["new"]["name"], entry["replaced"]["name"]) == ("new", "old")
    assert (entry["new"]["weights_sha256"], entry["replaced"]["weights_sha256"]) == ("cd" * 32, "ab" * 32)
    assert entry["new"]["subjects"]["mean"]["iou"] > entry["replaced"]["subjects"]["mean"]["iou"]
    assert entry["data"] == {"sha256": new.about.data_sha256, "split": "val"}


def test_the_record_grows_by_one_line_a_promotion(data: Path, gate: Gate) -> None:
    runs = [a_run(data, Finder(shifted(pixels)), f"by {pixels}") for pixels in (4, 2, 0)]
    for old, new in pairwise(runs):
        gate(new, old)
    assert [(entry["replaced"]["name"], entry["new"]["name"]) for entry in gate.entries()] == [
        ("by 4", "by 2"),
        ("by 2", "by 0"),
    ]


def one_lost(found: Pixels) -> Pixels:
    """Loses the smallest disc alone."""
    return np.zeros_like(found) if 0 < (found > 0).mean() < 0.04 else found


@pytest.mark.parametrize(("new", "current"), [(Finder(shifted(2)), Finder()), (Finder(), Finder())])
def test_one_whose_mean_is_not_higher_is_refused(data: Path, gate: Gate, new: Finder, current: Finder) -> None:
    with pytest.raises(NotPromoted, match="its mean IoU is"):
        gate(a_run(data, new, "new"), a_run(data, current, "old"))
    assert (gate.installed, gate.entries()) == (0, [])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (one_lost, "1 images are below 0.5, not at most 0"),
        (a_ghost, "it finds over 1% in 1 images without a subject, not in at most 0"),
    ],
)
def test_a_higher_mean_excuses_neither_a_failure_nor_a_find(
    data: Path, gate: Gate, spoil: Callable[[Pixels], Pixels], said: str
) -> None:
    with pytest.raises(NotPromoted, match=said) as refused:
        gate(a_run(data, Finder(spoil), "new"), a_run(data, Finder(shifted(5)), "old"))
    assert "mean IoU" not in refused.value.message
    assert (gate.installed, gate.entries()) == (0, [])


def test_one_that_could_not_be_scored_everywhere_is_refused(data: Path, gate: Gate) -> None:
    new = a_run(data, Finder())
    new.faults.append(Fault("near_1", "It broke."))
    with pytest.raises(NotPromoted, match="1 images could not be scored"):
        gate(new, a_run(data, Finder(shifted(2))))


def test_figures_on_different_data_promote_nobody(data: Path, gate: Gate) -> None:
    old = a_run(data, Finder(shifted(2)))
    (data / "masks" / "near_1.png").write_bytes((data / "masks" / "near_2.png").read_bytes())
    with pytest.raises(InvalidData):
        gate(a_run(data, Finder()), old)


def test_nothing_is_installed_that_cannot_be_recorded(data: Path, tmp_path: Path) -> None:
    gate = Gate(tmp_path / "no_such_folder" / "promotions.jsonl")
    with pytest.raises(NotPromoted, match="cannot be written"):
        gate(a_run(data, Finder()), a_run(data, Finder(shifted(2))))
    assert gate.installed == 0


def test_an_installation_that_fails_is_not_recorded(data: Path, tmp_path: Path) -> None:
    def fails() -> None:
        raise InvalidWeights("The disk is full.")

    record = tmp_path / "promotions.jsonl"
    with pytest.raises(InvalidWeights):
        promote(a_run(data, Finder()), a_run(data, Finder(shifted(2))), record, fails, NOW)
    assert record.read_text() == ""


def test_a_candidate_is_known_by_its_engine_and_kind_of_file() -> None:
    assert weights_for(catalog.ENGINES["selfie"], Path("better.tflite")).name == "selfie"
    with pytest.raises(InvalidWeights, match="0 weights"):
        weights_for(catalog.ENGINES["selfie"], Path("better.onnx"))
    with pytest.raises(InvalidWeights, match="3 weights"):
        weights_for(catalog.ENGINES["sam"], Path("better.pth"))
