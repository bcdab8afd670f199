from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from maskdrop import catalog
from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.promote import NotPromoted, promote, weights_for
from sagemaker_model.evaluation.run import Run
from sagemaker_model.evaluation.summary import Unscored
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import InvalidWeights
from tests.unit.sagemaker_model.evaluation.synthetic import DiscEngine, disc, evaluate_run, shifted

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Promoter:
    """Calls `promote` with a separate record. installed: number of installations."""

    def __init__(self, record: Path) -> None:
        self.record = record
        self.installed = 0

    def __call__(self, new: Run, current: Run) -> None:
        promote([(new, current)], self.record, self._install, NOW)

    def _install(self) -> None:
        self.installed += 1

    def entries(self) -> list[dict]:
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.fixture
def promoter(tmp_path: Path) -> Promoter:
    return Promoter(tmp_path / "promotions.jsonl")


def false_positive(mask: Pixels) -> Pixels:
    return mask if mask.any() else disc(20)


def test_a_better_candidate_is_installed_and_recorded(data: Path, promoter: Promoter) -> None:
    new, old = (
        evaluate_run(data, DiscEngine(weights_sha256="cd" * 32), "new"),
        evaluate_run(data, DiscEngine(shifted(2)), "old"),
    )
    promoter(new, old)
    assert promoter.installed == 1
    (entry,) = promoter.entries()
    assert entry["date"] == "2026-11-21T12:00:00+00:00"
    assert (entry["new"]["name"], entry["replaced"]["name"]) == ("new", "old")
    assert (entry["new"]["weights_sha256"], entry["replaced"]["weights_sha256"]) == ("cd" * 32, "ab" * 32)
    assert entry["new"]["subjects"]["mean"]["iou"] > entry["replaced"]["subjects"]["mean"]["iou"]
    assert entry["data"] == {"sha256": new.info.data_sha256, "split": "val"}


def test_each_promotion_adds_one_line_to_the_record(data: Path, promoter: Promoter) -> None:
    runs = [evaluate_run(data, DiscEngine(shifted(pixels)), f"by {pixels}") for pixels in (4, 2, 0)]
    for old, new in pairwise(runs):
        promoter(new, old)
    assert [(entry["replaced"]["name"], entry["new"]["name"]) for entry in promoter.entries()] == [
        ("by 4", "by 2"),
        ("by 2", "by 0"),
    ]


def miss_smallest(mask: Pixels) -> Pixels:
    """Misses the smallest disc."""
    return np.zeros_like(mask) if 0 < (mask > 0).mean() < 0.04 else mask


@pytest.mark.parametrize(("new", "current"), [(DiscEngine(shifted(2)), DiscEngine()), (DiscEngine(), DiscEngine())])
def test_a_candidate_without_a_higher_mean_iou_is_rejected(
    data: Path, promoter: Promoter, new: DiscEngine, current: DiscEngine
) -> None:
    with pytest.raises(NotPromoted, match="its mean IoU is"):
        promoter(evaluate_run(data, new, "new"), evaluate_run(data, current, "old"))
    assert (promoter.installed, promoter.entries()) == (0, [])


@pytest.mark.parametrize(
    ("distort", "message"),
    [
        (miss_smallest, "1 images are below 0.5, not at most 0"),
        (false_positive, "it has false positives over 1% in 1 images without a subject, not in at most 0"),
    ],
)
def test_a_candidate_with_more_failures_or_false_positives_is_rejected_despite_a_higher_mean(
    data: Path, promoter: Promoter, distort: Callable[[Pixels], Pixels], message: str
) -> None:
    with pytest.raises(NotPromoted, match=message) as rejection:
        promoter(evaluate_run(data, DiscEngine(distort), "new"), evaluate_run(data, DiscEngine(shifted(5)), "old"))
    assert "mean IoU" not in rejection.value.message
    assert (promoter.installed, promoter.entries()) == (0, [])


def test_a_candidate_with_unscored_images_is_rejected(data: Path, promoter: Promoter) -> None:
    new = evaluate_run(data, DiscEngine())
    new.unscored.append(Unscored("near_1", "The engine failed."))
    with pytest.raises(NotPromoted, match="1 images could not be scored"):
        promoter(new, evaluate_run(data, DiscEngine(shifted(2))))


def test_runs_on_different_data_are_rejected(data: Path, promoter: Promoter) -> None:
    old = evaluate_run(data, DiscEngine(shifted(2)))
    (data / "masks" / "near_1.png").write_bytes((data / "masks" / "near_2.png").read_bytes())
    with pytest.raises(InvalidData):
        promoter(evaluate_run(data, DiscEngine()), old)


def test_a_promotion_that_cannot_be_recorded_is_not_installed(data: Path, tmp_path: Path) -> None:
    promoter = Promoter(tmp_path / "no_such_folder" / "promotions.jsonl")
    with pytest.raises(NotPromoted, match="cannot be written"):
        promoter(evaluate_run(data, DiscEngine()), evaluate_run(data, DiscEngine(shifted(2))))
    assert promoter.installed == 0


def test_a_failed_installation_is_not_recorded(data: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise InvalidWeights("The disk is full.")

    record = tmp_path / "promotions.jsonl"
    with pytest.raises(InvalidWeights):
        promote([(evaluate_run(data, DiscEngine()), evaluate_run(data, DiscEngine(shifted(2))))], record, fail, NOW)
    assert record.read_text() == ""


def test_weights_for_matches_engine_and_file_suffix() -> None:
    assert weights_for(catalog.ENGINES["selfie"], Path("better.tflite")).name == "selfie"
    with pytest.raises(InvalidWeights, match=r"which has: selfie_segmentation\.tflite"):
        weights_for(catalog.ENGINES["selfie"], Path("better.onnx"))
    with pytest.raises(InvalidWeights, match=r"sam_vit_b_01ec64\.pth"):
        weights_for(catalog.ENGINES["sam"], Path("better.pth"))


def test_weights_of_a_training_run_replace_a_checkpoint_of_torch() -> None:
    assert weights_for(catalog.ENGINES["modnet"], Path("best.safetensors")).file == "modnet.ckpt"
    with pytest.raises(InvalidWeights, match=r"portrait\.onnx\. `maskdrop export` converts"):
        weights_for(catalog.ENGINES["portrait"], Path("best.safetensors"))


def test_a_candidate_for_several_data_sets_must_be_better_on_each(data: Path, promoter: Promoter) -> None:
    good, fair, bad = (evaluate_run(data, DiscEngine(shifted(by)), f"by {by}") for by in (0, 2, 4))
    with pytest.raises(NotPromoted, match="does not replace by 2 on data: its mean IoU is"):
        promote([(good, fair), (bad, fair)], promoter.record, promoter._install, NOW)
    assert (promoter.installed, promoter.entries()) == (0, [])
    promote([(good, fair), (good, bad)], promoter.record, promoter._install, NOW)
    assert promoter.installed == 1
    assert [entry["replaced"]["name"] for entry in promoter.entries()] == ["by 2", "by 4"]
