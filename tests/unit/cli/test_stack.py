"""The progress of the commands of the local stack."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from cli import stack


class Recorder(Console):
    """A console that is no terminal. printed: set by every line."""

    def __init__(self) -> None:
        super().__init__(file=io.StringIO(), force_terminal=False, width=110)
        self.lines, self.printed = list[str](), threading.Event()

    def print(self, *objects: object, **settings: object) -> None:
        self.lines.append(str(objects[0]))
        self.printed.set()


def test_a_long_step_reports_its_time_in_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Recorder()
    monkeypatch.setattr(stack, "console", console)
    monkeypatch.setattr(stack, "PROGRESS_S", 0.001)
    with stack._step("Synthesizing"):
        assert console.printed.wait(10)
    assert console.lines[0].startswith("Synthesizing: ")
    assert console.lines[-1].split() == ["Synthesizing", console.lines[-1].split()[1], "s"]


def test_a_step_that_fails_ends_its_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Recorder()
    monkeypatch.setattr(stack, "console", console)
    before = threading.active_count()
    with pytest.raises(ValueError, match="no"), stack._step("Deploying"):
        raise ValueError("no")
    assert console.lines == []
    assert threading.active_count() == before


def test_a_step_shows_a_spinner_with_the_elapsed_time_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=110)
    monkeypatch.setattr(stack, "console", console)
    with stack._step("Deploying"):
        pass
    assert isinstance(console.file, io.StringIO)
    assert "Deploying" in console.file.getvalue()
    assert "0:00:00" in console.file.getvalue()
