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
from sagemaker_model.engines.base import Alpha
from sagemaker_model.evaluation.cases import InvalidData, read_alpha, read_dataset
from sagemaker_model.evaluation.run import by_engine, by_folder, evaluate, read_run, write_ious
from sagemaker_model.evaluation.summary import Fault, Result
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.made import DISCS, ROW, SIDES, Finder, a_run, disc, shifted


def test_an_engine_is_scored_picture_by_picture_in_order(data: Path) -> None:
    run = a_run(data, Finder())
    assert [(one.id, one.part) for one in run.results] == [(name, part) for name, (part, _) in DISCS.items()]
    assert all(one.scores.iou > 0.9 for one in run.results)
    assert run.results[-1].subject == run.results[-1].found == 0
    assert run.results[0].subject == pytest.approx((disc(40) > 0).mean())


def test_a_worse_engine_scores_less(data: Path) -> None:
    good, bad = a_run(data, Finder()), a_run(data, Finder(shifted(8)))
    assert all(b.scores.iou < a.scores.iou for a, b in zip(good.results[:-1], bad.results[:-1], strict=True))


def test_a_run_is_read_back_as_it_was_kept(data: Path, tmp_path: Path) -> None:
    kept = a_run(data, Finder(shifted(3)), folder=tmp_path / "run")
    assert read_run(tmp_path / "run") == kept
    assert kept.alpha("near_1").shape == SIDES
    summary = json.loads((tmp_path / "run" / "run.json").read_text())["summary"]
    assert summary["subjects"]["pictures"] == 5


def test_the_predictions_of_a_run_score_as_the_run_did(data: Path, tmp_path: Path) -> None:
    kept = a_run(data, Finder(shifted(3)), folder=tmp_path / "run")
    again = evaluate(read_dataset(data, "val").cases, by_folder(tmp_path / "run" / "alphas"), workers=2)
    assert list(again) == kept.results


def test_a_run_that_broke_off_is_no_run(data: Path, tmp_path: Path) -> None:
    a_run(data, Finder(), folder=tmp_path / "run")
    list(evaluate(read_dataset(data, "val").cases, by_engine(Finder(), ROW), workers=1, folder=tmp_path / "run"))
    with pytest.raises(InvalidData, match="no finished run"):
        read_run(tmp_path / "run")


def test_what_cannot_be_scored_is_told_with_its_reason_and_the_rest_goes_on(data: Path, tmp_path: Path) -> None:
    for name, (_, radius) in DISCS.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), disc(radius))
    (tmp_path / "near_1.png").unlink()
    cv2.imwrite(str(tmp_path / "near_2.png"), disc(30)[:50])
    ended = list(evaluate(read_dataset(data, "val").cases, by_folder(tmp_path), workers=1))
    missing, small, *others = ended
    assert isinstance(missing, Fault)
    assert "There is no" in missing.reason
    assert isinstance(small, Fault)
    assert "128 x 50" in small.reason
    assert "128 x 96" in small.reason
    assert all(isinstance(one, Result) and one.scores.iou == 1 for one in others)
    assert len(others) == 4


def test_a_photo_that_cannot_be_read_is_a_fault_of_its_own(data: Path) -> None:
    (data / "images" / "far_1.jpg").write_text("<html>")
    run = a_run(data, Finder())
    assert [fault.id for fault in run.faults] == ["far_1"]
    assert len(run.results) == 5


def test_a_folder_of_predictions_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no folder"):
        by_folder(tmp_path / "nowhere")


class Prompted(Finder):
    """Takes for subject what its prompts say."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        values = np.zeros(rgb.shape[:2], np.float32)
        for prompt in prompts:
            x0, y0, x1, y1 = map(int, prompt.box or ())
            values[y0:y1, x0:x1] = 1
        return Alpha(values)


def test_the_true_box_is_the_prompt_where_that_is_wanted(data: Path) -> None:
    case = read_dataset(data, "val").cases[0]
    assert not by_engine(Prompted(), ROW)(case).any()
    told = by_engine(Prompted(), ROW, truth_box=True)(case)
    assert cv2.boundingRect(told) == cv2.boundingRect(read_alpha(case.mask))


def test_a_picture_without_a_subject_has_no_box(data: Path) -> None:
    nothing = read_dataset(data, "val", parts=["no_person"]).cases[0]
    assert not by_engine(Prompted(), ROW, truth_box=True)(nothing).any()


def test_an_engine_that_takes_no_box_is_not_given_one(data: Path) -> None:
    with pytest.raises(InvalidPrompt, match="does not support boxes"):
        by_engine(Finder(), ENGINES["selfie"], truth_box=True)


def test_ious_are_also_written_as_two_columns_without_a_header(data: Path, tmp_path: Path) -> None:
    run = a_run(data, Finder(shifted(3)))
    write_ious(tmp_path / "iou.csv", run.results)
    with (tmp_path / "iou.csv").open(newline="") as file:
        assert [(name, float(iou)) for name, iou in csv.reader(file)] == [
            (one.id, one.scores.iou) for one in run.results
        ]
