from __future__ import annotations

import pytest

from maskdrop.job import dropped
from maskdrop.trace import trace_id_of, traceparent
from tests.fakes import NOW, a_source

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
REQUEST = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"


@pytest.mark.parametrize("text", [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00", f"cc-{TRACE}-{PARENT}-01-more"])
def test_the_trace_id_is_that_of_the_header(text: str) -> None:
    assert trace_id_of(text, REQUEST) == TRACE


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01\n",
    ],
)
def test_an_invalid_header_is_ignored(text: str) -> None:
    assert trace_id_of(text, REQUEST) == REQUEST.replace("-", "")
    assert trace_id_of(text, "no UUID") == ""


def test_a_header_is_read_as_it_is_written() -> None:
    assert trace_id_of(traceparent(TRACE, PARENT)) == TRACE


def test_the_trace_of_a_dropped_photo_is_its_job_in_every_function() -> None:
    first, again = (dropped(a_source(), NOW) for _ in range(2))
    assert first.trace_id == again.trace_id == first.id
