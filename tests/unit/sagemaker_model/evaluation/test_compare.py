from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.compare import compare
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.synthetic import DiscEngine, disc, evaluate_run, shifted


def shift_small_discs(mask: Pixels) -> Pixels:
    """Shifts small discs, and keeps large ones unchanged."""
    return mask if (mask > 0).mean() > 0.1 else np.roll(mask, 10, axis=1)


def test_differences_are_computed_per_image(data: Path) -> None:
    a, b = evaluate_run(data, DiscEngine(shifted(2)), "a"), evaluate_run(data, DiscEngine(), "b")
    comparison = compare(a, b)
    assert [(one.id, other.id) for one, other in comparison.pairs] == [(one.id, one.id) for one in a.results]
    (ious, false_positives) = comparison.tables()
    assert [row[0] for row in ious.rows] == ["all", "far", "near"]
    row = dict(zip(ious.header, ious.rows[0], strict=True))
    assert float(row["B - A"]) == pytest.approx(float(row["B"]) - float(row["A"]), abs=2e-4)
    low, high = map(float, row["95 % interval"].split(" to "))
    assert 0 < low < float(row["B - A"]) < high
    assert false_positives.rows == [("all", "1", "0", "0"), ("no_person", "1", "0", "0")]


def test_improvements_and_regressions_are_sorted_by_difference(data: Path) -> None:
    comparison = compare(
        evaluate_run(data, DiscEngine(shift_small_discs), "a"), evaluate_run(data, DiscEngine(shifted(2)), "b")
    )
    assert [one.id for one, _ in comparison.improvements(2)] == ["far_2", "far_1"]
    assert {one.id for one, _ in comparison.regressions(9)} == {"near_1", "near_2", "near_3"}
    assert [one.id for one, _ in comparison.regressions(1)] == ["near_3"]


def test_a_run_compared_with_itself_has_no_differences(data: Path) -> None:
    run = evaluate_run(data, DiscEngine())
    comparison = compare(run, run)
    assert comparison.improvements(9) == comparison.regressions(9) == []


def test_runs_on_different_data_are_not_compared(data: Path) -> None:
    before = evaluate_run(data, DiscEngine())
    (data / "masks" / "near_1.png").write_bytes((data / "masks" / "near_2.png").read_bytes())
    with pytest.raises(InvalidData, match="different images or masks"):
        compare(before, evaluate_run(data, DiscEngine()))


def test_images_that_one_run_did_not_score_are_in_no_pair(data: Path) -> None:
    whole = evaluate_run(data, DiscEngine())
    part = evaluate_run(data, DiscEngine())
    del part.results[1:]
    assert [one.id for one, _ in compare(whole, part).pairs] == [whole.results[0].id]
    part.results.clear()
    with pytest.raises(InvalidData, match="No image"):
        compare(whole, part)


def test_false_positives_are_counted(data: Path) -> None:
    ghost = DiscEngine(lambda mask: mask if mask.any() else disc(20))
    (_, false_positives) = compare(evaluate_run(data, DiscEngine()), evaluate_run(data, ghost)).tables()
    assert false_positives.rows[0] == ("all", "1", "0", "1")
    assert (
        compare(evaluate_run(data, DiscEngine()), evaluate_run(data, ghost)).regressions(9) == []
    )  # images without a subject are not compared by IoU
