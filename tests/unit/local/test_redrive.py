from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from local.redrive import PAGE, Progress, redrive
from maskdrop.errors import ErrorInfo, QueueUnavailable
from maskdrop.flow import new_jobs
from maskdrop.job import Job, State
from maskdrop.services import Selection
from maskdrop.wire import JobMessage
from tests.fakes import NOW, World, a_source, minutes_later

FAILED = Selection(state="failed")


def put(world: World, name: str, *, state: State = "failed", code: str = "gave_up", minutes: float = 0) -> Job:
    """Writes a job that failed, or changed to `state`, after some minutes."""
    (job,) = new_jobs([a_source(f"inbox/{name}")], NOW)
    error = ErrorInfo(code, "It went wrong.") if state == "failed" else None
    finished = minutes_later(minutes) if state in ("done", "failed") else None
    job = replace(job, state=state, error=error, attempts=3, changed_at=minutes_later(minutes), finished_at=finished)
    world.jobs.claim(job)
    return job


def run(world: World, selection: Selection = FAILED, **options: Any) -> Progress:
    *_, last = redrive(world.services, selection, clock=lambda: minutes_later(1000), **options)
    return last


def queued(world: World) -> set[str]:
    return {job.id for job in world.jobs.records.values() if job.state == "queued"}


def test_every_failed_job_of_every_page_is_retried_once_with_a_message() -> None:
    world = World()
    jobs = [put(world, f"{number}.jpg", minutes=number / 100) for number in range(2 * PAGE + 1)]
    put(world, "submitted.jpg", state="submitted")
    put(world, "done.jpg", state="done")
    progress = run(world)
    assert (progress.matched, progress.retried, progress.skipped) == (len(jobs), len(jobs), {})
    assert queued(world) == {job.id for job in jobs}
    # A job that may have crashed the container starts in a small bundle.
    assert sorted(body for body, _ in world.queue.sent) == sorted(
        JobMessage(job.id, 3, job.trace_id).to_body() for job in jobs
    )
    assert {job.attempts for job in world.jobs.records.values() if job.state == "queued"} == {0}


@pytest.mark.parametrize(
    ("selection", "code", "expected"),
    [
        (FAILED, "gave_up", {"summer/a.jpg", "b.jpg"}),
        (FAILED, "source_missing", {"summer/c.jpg"}),
        (replace(FAILED, prefix="inbox/summer/"), "", {"summer/a.jpg", "summer/c.jpg"}),
        (replace(FAILED, since=minutes_later(2)), "", {"b.jpg", "summer/c.jpg"}),
        (replace(FAILED, until=minutes_later(2)), "", {"summer/a.jpg"}),
        (replace(FAILED, since=minutes_later(2), prefix="inbox/summer/"), "gave_up", set()),
        (replace(FAILED, state="queued"), "", set()),
    ],
)
def test_jobs_are_selected_by_code_prefix_and_time_of_their_failure(
    selection: Selection, code: str, expected: set[str]
) -> None:
    world = World()
    put(world, "summer/a.jpg", minutes=1)
    put(world, "b.jpg", minutes=2)
    put(world, "summer/c.jpg", code="source_missing", minutes=3)
    assert run(world, selection, code=code).retried == len(expected)
    assert {world.jobs.records[job_id].source.key for job_id in queued(world)} == {f"inbox/{key}" for key in expected}


def test_a_dry_run_counts_jobs_and_changes_none() -> None:
    world = World()
    put(world, "a.jpg")
    before = dict(world.jobs.records)
    progress = run(world, dry_run=True)
    assert (progress.matched, progress.retried) == (1, 0)
    assert (world.jobs.records, world.queue.sent) == (before, [])


def test_an_interrupted_run_is_completed_by_the_next_one() -> None:
    world = World()
    for number in range(PAGE + 1):
        put(world, f"{number}.jpg", minutes=number / 100)
    next(redrive(world.services, FAILED))  # interrupted after the first page
    assert len(queued(world)) == PAGE
    assert run(world).retried == 1
    assert len(world.queue.sent) == PAGE + 1


def test_queued_jobs_get_the_message_that_could_not_be_sent() -> None:
    world = World()
    job = put(world, "a.jpg")
    world.queue.broken = QueueUnavailable("Sending to the queue failed.")
    with pytest.raises(QueueUnavailable):
        run(world)
    world.queue.broken = None
    assert run(world).matched == 0
    assert run(world, replace(FAILED, state="queued")).retried == 1
    assert [JobMessage.from_body(body).job_id for body, _ in world.queue.sent] == [job.id]


def test_a_job_that_cannot_be_retried_is_skipped_with_the_reason() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "bmp"}})
    put(world, "shop/a.jpg", code="invalid_preset")
    fine = put(world, "b.jpg")
    progress = run(world)
    assert (progress.retried, queued(world)) == (1, {fine.id})
    ((reason, count),) = progress.skipped.items()
    assert count == 1
    assert "output.format" in reason
