from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from maskdrop.catalog import ENGINES
from maskdrop.errors import InvalidPrompt
from maskdrop.prompt import Prompts
from sagemaker_model.data.records import InvalidData
from sagemaker_model.engines.base import Alpha
from sagemaker_model.evaluation.cases import read_alpha, read_dataset
from sagemaker_model.evaluation.metrics import MASK_THRESHOLD
from sagemaker_model.evaluation.run import engine_predictor, evaluate, folder_predictor, read_run, write_ious
from sagemaker_model.evaluation.summary import Result, Unscored
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.synthetic import DISCS, ROW, SIDES, DiscEngine, disc, evaluate_run, shifted


def test_an_engine_is_scored_image_by_image_in_order(data: Path) -> None:
    run = evaluate_run(data, DiscEngine())
    assert [(one.id, one.part) for one in run.results] == [(name, part) for name, (part, _) in DISCS.items()]
    assert all(one.scores.iou > 0.9 for one in run.results)
    assert run.results[-1].subject == run.results[-1].found == 0
    assert run.results[0].subject == pytest.approx((disc(40) > 0).mean())


def test_a_worse_engine_scores_less(data: Path) -> None:
    good, bad = evaluate_run(data, DiscEngine()), evaluate_run(data, DiscEngine(shifted(8)))
    assert all(b.scores.iou < a.scores.iou for a, b in zip(good.results[:-1], bad.results[:-1], strict=True))


def test_a_stored_run_is_read_unchanged(data: Path, tmp_path: Path) -> None:
    stored = evaluate_run(data, DiscEngine(shifted(3)), folder=tmp_path / "run")
    assert read_run(tmp_path / "run") == stored
    assert stored.alpha("near_1").shape == SIDES
    summary = json.loads((tmp_path / "run" / "run.json").read_text())["summary"]
    assert summary["subjects"]["pictures"] == 5


def test_the_stored_predictions_of_a_run_give_the_same_scores(data: Path, tmp_path: Path) -> None:
    stored = evaluate_run(data, DiscEngine(shifted(3)), folder=tmp_path / "run")
    again = evaluate(read_dataset(data, "val").cases, folder_predictor(tmp_path / "run" / "alphas"), workers=2)
    assert list(again) == stored.results


def test_an_incomplete_run_is_rejected(data: Path, tmp_path: Path) -> None:
    evaluate_run(data, DiscEngine(), folder=tmp_path / "run")
    list(
        evaluate(
            read_dataset(data, "val").cases, engine_predictor(DiscEngine(), ROW), workers=1, folder=tmp_path / "run"
        )
    )
    with pytest.raises(InvalidData, match="not a complete run"):
        read_run(tmp_path / "run")


def test_unscored_images_have_a_reason_and_do_not_affect_others(data: Path, tmp_path: Path) -> None:
    for name, (_, radius) in DISCS.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), disc(radius))
    (tmp_path / "near_1.png").unlink()
    cv2.imwrite(str(tmp_path / "near_2.png"), disc(30)[:50])
    outcomes = list(evaluate(read_dataset(data, "val").cases, folder_predictor(tmp_path), workers=1))
    missing, small, *others = outcomes
    assert isinstance(missing, Unscored)
    assert "does not exist" in missing.reason
    assert isinstance(small, Unscored)
    assert "128 x 50" in small.reason
    assert "128 x 96" in small.reason
    assert all(isinstance(one, Result) and one.scores.iou == 1 for one in others)
    assert len(others) == 4


def test_an_unreadable_image_is_unscored(data: Path) -> None:
    (data / "images" / "far_1.jpg").write_text("<html>")
    run = evaluate_run(data, DiscEngine())
    assert [case.id for case in run.unscored] == ["far_1"]
    assert len(run.results) == 5


def test_a_missing_folder_of_predictions_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="does not exist"):
        folder_predictor(tmp_path / "nowhere")


class PromptedEngine(DiscEngine):
    """Returns the boxes of its prompts as the subject."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        values = np.zeros(rgb.shape[:2], np.float32)
        for prompt in prompts:
            x0, y0, x1, y1 = map(int, prompt.box or ())
            values[y0:y1, x0:x1] = 1
        return Alpha(values)


def test_truth_box_prompts_the_engine_with_the_box_of_the_true_mask(data: Path) -> None:
    case = read_dataset(data, "val").cases[0]
    assert not engine_predictor(PromptedEngine(), ROW)(case).any()
    alpha = engine_predictor(PromptedEngine(), ROW, truth_box=True)(case)
    solid = (alpha >= MASK_THRESHOLD).astype(np.uint8)  # the refinement softens the edge by a pixel
    assert cv2.boundingRect(solid) == cv2.boundingRect(read_alpha(case.mask))


def test_an_image_without_a_subject_gives_no_prompt(data: Path) -> None:
    empty = read_dataset(data, "val", parts=["no_person"]).cases[0]
    assert not engine_predictor(PromptedEngine(), ROW, truth_box=True)(empty).any()


def test_truth_box_is_rejected_for_an_engine_that_does_not_support_boxes(data: Path) -> None:
    with pytest.raises(InvalidPrompt, match="does not support a box"):
        engine_predictor(DiscEngine(), ENGINES["selfie"], truth_box=True)


def test_ious_are_written_as_two_columns_without_a_header(data: Path, tmp_path: Path) -> None:
    run = evaluate_run(data, DiscEngine(shifted(3)))
    write_ious(tmp_path / "iou.csv", run.results)
    with (tmp_path / "iou.csv").open(newline="") as file:
        assert [(name, float(iou)) for name, iou in csv.reader(file)] == [
            (one.id, one.scores.iou) for one in run.results
        ]
