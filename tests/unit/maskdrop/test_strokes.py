"""Strokes of a request: their JSON form, their limits and the options that they exclude."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskdrop.errors import InvalidOptions, OptionsConflict
from maskdrop.job import Source, job_id
from maskdrop.options import Options
from maskdrop.strokes import POINTS_MAX, STROKES_MAX, WIDTH_MAX, WIDTH_MIN, WIDTH_PATTERN

STROKE = {"mode": "erase", "width": "24px", "hardness": 0.8, "points": [[10.0, 20.5], [30.0, 40.0]]}


def test_strokes_survive_a_round_trip_in_their_order() -> None:
    strokes = [STROKE, {**STROKE, "mode": "restore", "width": "2.5%", "points": [[1.0, 2.0]]}]
    options = Options.from_json({"strokes": strokes})
    assert options.to_json()["strokes"] == strokes
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({**STROKE, "width": 24}, STROKE),
        ({**STROKE, "width": " 24px "}, STROKE),
        ({**STROKE, "points": [[10.04, 20.46], [30, 40]]}, STROKE),
        ({**STROKE, "hardness": 0.801}, STROKE),
        ({**STROKE, "hardness": None}, {**STROKE, "hardness": 1.0}),
    ],
)
def test_aliases_of_one_stroke_have_one_form(sent: dict[str, Any], kept: dict[str, Any]) -> None:
    assert Options.from_json({"strokes": [sent]}).to_json()["strokes"] == [kept]


def test_strokes_change_the_id_of_a_job_and_none_keep_it() -> None:
    source = Source("inbox", "a.jpg")
    ids = [
        job_id(source, Options.from_json({"strokes": strokes})) for strokes in (None, [], [STROKE], [STROKE, STROKE])
    ]
    assert ids[0] == ids[1] == job_id(source, Options())
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    ("stroke", "names"),
    [
        (1, "object with the fields mode, width, hardness, points"),
        ({**STROKE, "colour": 1}, "colour"),
        ({**STROKE, "mode": "paint"}, "erase or restore; got 'paint'"),
        ({**STROKE, "width": 0}, "0.5px to 2000px"),
        ({**STROKE, "width": True}, "0.5px to 2000px"),
        ({**STROKE, "width": math.nan}, "0.5px to 2000px"),
        ({**STROKE, "width": "0"}, "0.5px to 2000px"),
        ({**STROKE, "width": "51%"}, "at most 50%"),
        ({**STROKE, "width": None}, "0.5px to 2000px"),
        ({**STROKE, "hardness": 1.1}, "from 0 to 1"),
        ({**STROKE, "points": []}, "one or more pairs"),
        ({**STROKE, "points": [[1, 2, 3]]}, "one or more pairs"),
        ({**STROKE, "points": [[1, math.inf]]}, "one or more pairs"),
        ({**STROKE, "points": [["1", 2]]}, "one or more pairs"),
        ({"mode": "erase", "width": 3}, "one or more pairs"),
    ],
)
def test_an_invalid_stroke_is_refused_with_the_accepted_values(stroke: Any, names: str) -> None:
    with pytest.raises(InvalidOptions, match=names):
        Options.from_json({"strokes": [stroke]})


def test_the_number_of_strokes_and_points_is_limited() -> None:
    assert len(Options.from_json({"strokes": [STROKE] * STROKES_MAX}).strokes) == STROKES_MAX
    with pytest.raises(InvalidOptions, match="at most 200 strokes; got 201"):
        Options.from_json({"strokes": [STROKE] * (STROKES_MAX + 1)})
    with pytest.raises(InvalidOptions, match="at most 5,000 points; got 5,001"):
        Options.from_json({"strokes": [{**STROKE, "points": [[1, 1]] * (POINTS_MAX + 1)}]})


@pytest.mark.parametrize("strokes", ["erase", {"mode": "erase"}, 1])
def test_strokes_that_are_no_list_are_refused(strokes: Any) -> None:
    with pytest.raises(InvalidOptions, match="must be a list"):
        Options.from_json({"strokes": strokes})


@pytest.mark.parametrize(
    "options",
    [
        {"task": "detect"},
        {"prompt": {"label": "face"}, "instances": "each"},
        {"task": "mask", "engine": "sam2"},
    ],
)
def test_strokes_need_one_alpha(options: dict[str, Any]) -> None:
    with pytest.raises(OptionsConflict, match="strokes"):
        Options.from_json({**options, "strokes": [STROKE]})


@pytest.mark.parametrize("value", [[None], [[]], [{"mode": {}}], [{**STROKE, "points": {}}], [[STROKE]], {}])
def test_any_other_json_is_refused_with_an_input_error(value: Any) -> None:
    with pytest.raises(InvalidOptions, match="stroke"):
        Options.from_json({"strokes": value})


def test_the_console_has_the_same_limits() -> None:
    source = (Path(__file__).parents[3] / "web" / "js" / "editor" / "strokes.js").read_text()
    limits = {name: float(value) for name, value in re.findall(r"export const (\w+) = ([\d.]+);", source)}
    expected = {
        "STROKES_MAX": STROKES_MAX,
        "POINTS_MAX": POINTS_MAX,
        "WIDTH_MIN": WIDTH_MIN,
        "WIDTH_MAX": WIDTH_MAX["px"],
    }
    assert limits == expected


@given(st.from_regex(WIDTH_PATTERN, fullmatch=True))
def test_every_width_of_the_openapi_document_is_accepted_and_written_as_one(width: str) -> None:
    (stroke,) = Options.from_json({"strokes": [{**STROKE, "width": width}]}).to_json()["strokes"]
    assert re.fullmatch(WIDTH_PATTERN, stroke["width"])
