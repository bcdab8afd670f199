from __future__ import annotations

from pathlib import Path

import numpy as np

from maskdrop import catalog
from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.evaluation.cases import read_dataset
from sagemaker_model.evaluation.overview import HEADER, markdown, overview
from sagemaker_model.evaluation.speed import milliseconds, sample
from sagemaker_model.imaging.pixels import Pixels
from tests.unit.sagemaker_model.evaluation.synthetic import DiscEngine, evaluate_run, shifted


def test_the_table_has_a_row_for_each_engine_data_set_and_part(data: Path) -> None:
    runs = {"good": [evaluate_run(data, DiscEngine())], "bad": [evaluate_run(data, DiscEngine(shifted(6)))]}
    table = overview(runs, {"good": {1: 12.3, 12: 99.6}})
    rows = [dict(zip(HEADER, row, strict=True)) for row in table.rows]
    assert [(row["engine"], row["data"], row["part"], row["images"]) for row in rows] == [
        (engine, "data", part, count)
        for engine in ("good", "bad")
        for part, count in (("all", "6"), ("far", "2"), ("near", "3"), ("no_person", "1"))
    ]
    assert [row["ms at 12 MP"] for row in rows] == ["100", *[""] * 7]
    assert float(rows[0]["mean IoU"]) > float(rows[4]["mean IoU"]) > 0
    assert rows[3]["over 1% without a subject"] == "0 of 1"
    assert rows[3]["mean IoU"] == rows[1]["over 1% without a subject"] == ""


def test_the_markdown_of_a_table_has_its_header_and_rows(data: Path) -> None:
    lines = markdown(overview({"good": [evaluate_run(data, DiscEngine())]}, {})).splitlines()
    assert lines[0] == f"| {' | '.join(HEADER)} |"
    assert len(lines) == 2 + 4
    assert {line.count("|") for line in lines} == {len(HEADER) + 1}


def test_the_sample_of_the_timing_is_spread_over_all_data_sets(data: Path) -> None:
    cases = read_dataset(data, "val").cases
    assert [case.id for case in sample([cases[:3], cases[3:]], 4)] == ["near_1", "far_1", "near_3", "nothing"]


def test_the_timing_is_the_median_of_images_of_the_requested_size(data: Path) -> None:
    sizes: list[int] = []

    class Watching(DiscEngine):
        def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
            sizes.append(rgb.shape[0] * rgb.shape[1])
            return super().predict(rgb[::8, ::8], prompts)

    cases = read_dataset(data, "val").cases[:3]
    assert milliseconds(Watching(), catalog.engine("portrait"), cases, 1, "cpu") > 0
    assert len(sizes) == 3
    assert np.allclose(sizes, 1e6, rtol=0.01)
