from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import redrive as command
from cli.app import app
from local.redrive import JobServices, Progress
from maskdrop.services import Selection
from tests.fakes import World
from tests.unit.local.test_redrive import put


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A fake deployment that the command uses, for the stage shop only."""
    world = World()

    @contextmanager
    def job_services(stage: str | None) -> Iterator[JobServices]:
        assert stage == "shop"
        yield JobServices(world.jobs, world.queue, world.edits_queue, world.services.presets)

    monkeypatch.setattr(command, "job_services", job_services)
    return world


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, ["redrive", "--stage", "shop", *words])


def test_redrive_prints_the_number_of_retried_jobs(world: World) -> None:
    for number in range(3):
        put(world, f"{number}.jpg")
    assert run("--dry-run").stdout == "3 jobs would be retried.\n"
    assert run().stdout == "Retried 3 of 3 jobs.\n"
    assert run().stdout == "Retried 0 of 0 jobs.\n"


def test_redrive_prints_why_jobs_were_skipped(world: World) -> None:
    world.registry.put("preset", "shop", {"output": {"format": "bmp"}})
    put(world, "shop/a.jpg", code="invalid_preset")
    lines = run().stdout.splitlines()
    assert lines[0] == "Retried 0 of 1 job."
    assert lines[1].startswith("Skipped 1: ")


def test_a_code_that_no_job_has_is_reported_with_a_similar_one(world: World) -> None:
    assert "No job has the code give_up; did you mean gave_up?" in run("--code", "give_up").stdout
    put(world, "a.jpg", code="engine_unavailable")
    for code in ("", "gave_up", "engine_unavailable"):
        assert "did you mean" not in run("--code", code, "--dry-run").stdout


def test_times_are_in_utc(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    selections = []

    def record(_: Any, selection: Selection, **options: Any) -> Iterator[Progress]:
        selections.append((selection, options))
        return iter(())

    monkeypatch.setattr(command, "redrive_jobs", record)
    run("--since", "2026-11-20", "--until", "2026-11-21T12:30:00", "--prefix", "inbox/a/", "--code", "gave_up")
    since, until = datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    selection = Selection(state="failed", prefix="inbox/a/", since=since, until=until)
    assert selections == [(selection, {"code": "gave_up", "dry_run": False})]


def test_an_interruption_prints_the_number_so_far_and_exits_130(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Iterator[Progress]:
        yield Progress(matched=100, retried=100)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "redrive_jobs", interrupted)
    result = run()
    assert result.exit_code == 130
    assert result.stdout.splitlines()[0] == "Retried 100 of 100 jobs."
    assert "repeat the command" in result.stdout


@pytest.mark.parametrize("state", ["done", "submitted"])
def test_jobs_in_other_states_cannot_be_selected(world: World, state: str) -> None:
    assert run("--state", state).exit_code == 2
