from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from sagemaker_model.evaluation.metrics import Scores
from sagemaker_model.evaluation.summary import Result, bootstrap_interval, summarise, tables


def result(iou: float, *, subject: float = 0.3, found: float = 0.3, part: str = "") -> Result:
    return Result("id", part, subject, found, Scores(**{item.name: iou for item in fields(Scores)}))


def test_the_summary_counts_good_and_failed_images() -> None:
    subjects = summarise([result(iou) for iou in (0.2, 0.5, 0.9, 1.0, 0.4)]).subjects
    assert subjects is not None
    assert (subjects.pictures, subjects.good, subjects.failed) == (5, 2, 2)
    assert subjects.mean.iou == subjects.mean.dice == pytest.approx(0.6)
    assert subjects.median_iou == 0.5
    assert 0.2 < subjects.low < 0.6 < subjects.high < 1


def test_images_without_a_subject_are_summarised_separately() -> None:
    empty = [result(0, subject=0, found=found) for found in (0, 0, 0.004, 0.05)]
    summary = summarise([result(0.8), *empty])
    assert summary.subjects is not None
    assert summary.subjects.mean.iou == pytest.approx(0.8)
    assert summary.empties is not None
    assert (summary.empties.pictures, summary.empties.finds, summary.empties.no_subject) == (4, 1, 2)
    assert summary.empties.found == pytest.approx(0.0135)


def test_no_results_give_no_summary_and_no_tables() -> None:
    summary = summarise([])
    assert (summary.subjects, summary.empties) == (None, None)
    assert tables([]) == []


def test_the_interval_contains_the_mean_of_about_19_of_20_samples() -> None:
    random = np.random.default_rng(1)
    bounds = [bootstrap_interval(random.beta(9, 1, 60)) for _ in range(30)]
    assert 0.85 < np.mean([low < 0.9 < high for low, high in bounds]) <= 1


def test_the_interval_is_reproducible_and_has_no_width_for_equal_values() -> None:
    values = np.array([0.2, 0.9, 0.95])
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(np.full(5, 0.7)) == pytest.approx((0.7, 0.7))


def test_several_parts_have_one_row_each() -> None:
    masks, _ = tables([result(1, part="near"), result(0.5, part="far")])
    assert [row[:3] for row in masks.rows] == [
        ("all", "2", "0.7500"),
        ("far", "1", "0.5000"),
        ("near", "1", "1.0000"),
    ]
    masks, _ = tables([result(1, part="near")] * 2)
    assert [row[0] for row in masks.rows] == ["all"]
