from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from sagemaker_model.evaluation.metrics import Scores
from sagemaker_model.evaluation.summary import Result, interval, summarise, tables


def a_result(iou: float, *, subject: float = 0.3, found: float = 0.3, part: str = "") -> Result:
    return Result("id", part, subject, found, Scores(**{item.name: iou for item in fields(Scores)}))


def test_failures_and_good_ones_stand_beside_the_mean() -> None:
    said = summarise([a_result(iou) for iou in (0.2, 0.5, 0.9, 1.0, 0.4)]).subjects
    assert said is not None
    assert (said.pictures, said.good, said.failed) == (5, 2, 2)
    assert said.mean.iou == said.mean.dice == pytest.approx(0.6)
    assert said.median_iou == 0.5
    assert 0.2 < said.low < 0.6 < said.high < 1


def test_pictures_without_a_subject_are_told_apart_and_touch_no_mean() -> None:
    empty = [a_result(0, subject=0, found=found) for found in (0, 0, 0.004, 0.05)]
    said = summarise([a_result(0.8), *empty])
    assert said.subjects is not None
    assert said.subjects.mean.iou == pytest.approx(0.8)
    assert said.empties is not None
    assert (said.empties.pictures, said.empties.finds, said.empties.no_subject) == (4, 1, 2)
    assert said.empties.found == pytest.approx(0.0135)


def test_nothing_comes_to_nothing() -> None:
    said = summarise([])
    assert (said.subjects, said.empties) == (None, None)
    assert tables([]) == []


def test_the_interval_holds_the_mean_of_19_of_20_samples_of_one_population() -> None:
    random = np.random.default_rng(1)
    bounds = [interval(random.beta(9, 1, 60)) for _ in range(30)]
    assert 0.85 < np.mean([low < 0.9 < high for low, high in bounds]) <= 1


def test_the_interval_is_the_same_each_time_and_narrow_where_all_agree() -> None:
    values = np.array([0.2, 0.9, 0.95])
    assert interval(values) == interval(values)
    assert interval(np.full(5, 0.7)) == pytest.approx((0.7, 0.7))


def test_parts_have_rows_of_their_own_where_there_are_several() -> None:
    masks, _ = tables([a_result(1, part="near"), a_result(0.5, part="far")])
    assert [row[:3] for row in masks.rows] == [
        ("all", "2", "0.7500"),
        ("far", "1", "0.5000"),
        ("near", "1", "1.0000"),
    ]
    masks, _ = tables([a_result(1, part="near")] * 2)
    assert [row[0] for row in masks.rows] == ["all"]
