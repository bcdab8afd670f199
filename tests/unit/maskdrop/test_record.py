from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import pytest

from maskdrop.errors import InvalidOptions
from maskdrop.options import JSON_FIELDS, Options
from maskdrop.record import Decimals, Inline, Record
from maskdrop.wire import Bundle, BundleResponse, Facts, Item, JobMessage, Outcome

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner(Record):
    share: Annotated[float, Decimals(2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer(Record):
    name: str
    kind: Literal["a", "b"] = "a"
    options: Annotated[Options, Inline(JSON_FIELDS)]
    moment: datetime | None = None
    inner: tuple[Inner, ...] = ()
    box: tuple[int, int] | None = None
    counts: dict[str, float] | None = None
    side: Literal["l", "r"] | None = None


FULL = Outer(
    name="n",
    kind="b",
    options=Options(engine="grabcut"),
    moment=NOON,
    inner=(Inner(share=0.125), Inner(share=0.5)),
    box=(1, 2),
    counts={"x": 1.5},
    side="r",
)
FULL_JSON: dict[str, Any] = {
    "name": "n",
    "kind": "b",
    "task": "cutout",
    "engine": "grabcut",
    "prompt": {},
    "output": {"format": "png", "channels": "rgba"},
    "moment": "2026-11-29T12:00:00.000000Z",
    "inner": [{"share": 0.12}, {"share": 0.5}],
    "box": [1, 2],
    "counts": {"x": 1.5},
    "side": "r",
}


def test_fields_are_written_in_their_order_and_rounded_where_annotated() -> None:
    assert list(FULL.to_json().items()) == list(FULL_JSON.items())


def test_what_was_written_is_read_back() -> None:
    assert Outer.from_json(FULL.to_json()).to_json() == FULL_JSON
    assert Outer.from_json({**FULL_JSON, "inner": []}).box == (1, 2)


def test_a_missing_or_null_field_takes_its_default() -> None:
    assert Outer.from_json({"name": "n", "kind": None}) == Outer(name="n", options=Options())


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": None}, TypeError),
        ({"name": 3}, TypeError),
        ({"kind": "c"}, ValueError),
        ({"box": [1, 2, 3]}, ValueError),
        ({"moment": "noon"}, ValueError),
        ({"inner": [{}]}, KeyError),
        ({"inner": [[]]}, TypeError),
        ({"box": [1, float("inf")]}, ValueError),
        ({"counts": [1]}, TypeError),
        ({"side": "c"}, ValueError),
    ],
)
def test_a_value_of_another_type_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Outer.from_json({**FULL_JSON, **changes})


def test_whole_numbers_may_be_written_as_floats_and_the_reverse() -> None:
    read = Outer.from_json({**FULL_JSON, "box": [1.0, 2.0], "counts": {"x": 2}})
    assert read.box == (1, 2)
    assert repr(read.counts) == "{'x': 2.0}"


@pytest.mark.parametrize("data", [[], "name", None, 3])
def test_only_an_object_is_read(data: Any) -> None:
    with pytest.raises(TypeError, match="is not an object"):
        Outer.from_json(data)


def test_a_value_out_of_a_fixed_set_is_named_with_the_set() -> None:
    with pytest.raises(ValueError, match="'c' is not one of a, b"):
        Outer.from_json({**FULL_JSON, "kind": "c"})


@pytest.mark.parametrize("engine", [{}, {"engine": None}])
def test_an_outcome_without_an_engine_is_read(engine: dict[str, Any]) -> None:
    assert Outcome.from_json({"id": "1", **engine}) == Outcome("1", "")


def test_a_missing_field_without_a_default_is_named() -> None:
    with pytest.raises(KeyError, match="name"):
        Outer.from_json({})


def test_fields_of_a_newer_release_are_ignored() -> None:
    assert Outer.from_json({**FULL_JSON, "added_later": 1}) == Outer.from_json(FULL_JSON)


@pytest.mark.parametrize("kind", [BundleResponse, Facts, Item, JobMessage])
def test_the_messages_between_processes_use_the_codec(kind: type) -> None:
    assert issubclass(kind, Record)
    assert "to_json" not in vars(kind)


def test_a_bundle_with_a_key_that_is_not_text_is_refused() -> None:

    with pytest.raises(InvalidOptions, match="not a bundle"):
        Bundle.from_bytes(b'{"bundle": "b", "items": [{"id": 1}]}')
