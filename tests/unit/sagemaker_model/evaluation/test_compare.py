from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sagemaker_model.evaluation.cases import InvalidData
from sagemaker_model.evaluation.compare import compare
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.made import Finder, a_run, disc, shifted


def large_alone(found: Pixels) -> Pixels:
    """Shifts small discs away, and finds large ones as they are."""
    return found if (found > 0).mean() > 0.1 else np.roll(found, 10, axis=1)


def test_differences_are_taken_picture_by_picture(data: Path) -> None:
    a, b = a_run(data, Finder(shifted(2)), "a"), a_run(data, Finder(), "b")
    found = compare(a, b)
    assert [(one.id, other.id) for one, other in found.pairs] == [(one.id, one.id) for one in a.results]
    (ious, finds) = found.tables()
    assert [row[0] for row in ious.rows] == ["all", "far", "near"]
    row = dict(zip(ious.header, ious.rows[0], strict=True))
    assert float(row["B - A"]) == pytest.approx(float(row["B"]) - float(row["A"]), abs=2e-4)
    low, high = map(float, row["95 % interval"].split(" to "))
    assert 0 < low < float(row["B - A"]) < high
    assert finds.rows == [("all", "1", "0", "0"), ("no_person", "1", "0", "0")]


def test_the_pictures_that_differ_most_come_first_in_both_directions(data: Path) -> None:
    found = compare(a_run(data, Finder(large_alone), "a"), a_run(data, Finder(shifted(2)), "b"))
    assert [one.id for one, _ in found.gains(2)] == ["far_2", "far_1"]
    assert {one.id for one, _ in found.losses(9)} == {"near_1", "near_2", "near_3"}
    assert [one.id for one, _ in found.losses(1)] == ["near_3"]


def test_a_run_beside_itself_differs_nowhere(data: Path) -> None:
    run = a_run(data, Finder())
    found = compare(run, run)
    assert found.gains(9) == found.losses(9) == []


def test_runs_on_different_data_are_not_compared(data: Path) -> None:
    before = a_run(data, Finder())
    (data / "masks" / "near_1.png").write_bytes((data / "masks" / "near_2.png").read_bytes())
    with pytest.raises(InvalidData, match="other images or masks"):
        compare(before, a_run(data, Finder()))


def test_pictures_that_one_could_not_score_are_in_no_pair(data: Path) -> None:
    whole = a_run(data, Finder())
    part = a_run(data, Finder())
    del part.results[1:]
    assert [one.id for one, _ in compare(whole, part).pairs] == [whole.results[0].id]
    part.results.clear()
    with pytest.raises(InvalidData, match="No image"):
        compare(whole, part)


def test_a_find_where_there_is_nothing_is_counted(data: Path) -> None:
    ghost = Finder(lambda found: found if found.any() else disc(20))
    (_, finds) = compare(a_run(data, Finder()), a_run(data, ghost)).tables()
    assert finds.rows[0] == ("all", "1", "0", "1")
    assert compare(a_run(data, Finder()), a_run(data, ghost)).losses(9) == []  # any speck would top the list
