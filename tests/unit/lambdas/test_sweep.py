from dataclasses import replace

import pytest

from lambdas.sweep import process
from maskdrop.errors import TableUnavailable
from maskdrop.flow import admit, new_jobs
from maskdrop.job import Job
from tests.fakes import NOW, World, a_source, minutes_later


def test_sweep_returns_the_number_of_retried_jobs() -> None:
    world = World()
    admit(new_jobs([a_source(), a_source("inbox/b.jpg")], NOW), world.settings, world.services, NOW)
    assert process(world.settings, world.services, minutes_later(10)) == {"moved": 0}
    assert process(world.settings, world.services, minutes_later(1000)) == {"moved": 2}


def many_jobs(count: int) -> World:
    world = World()
    sources = [a_source(f"inbox/{number}.jpg") for number in range(count)]
    admit(new_jobs(sources, NOW), world.settings, world.services, NOW)
    return world


def test_one_invocation_retries_all_overdue_jobs_of_a_deleted_endpoint() -> None:
    world = many_jobs(2500)
    assert process(world.settings, world.services, minutes_later(1000)) == {"moved": 2500}
    assert {job.state for job in world.jobs.records.values()} == {"queued"}


def test_an_invocation_ends_before_its_timeout_and_the_next_one_continues() -> None:
    world = many_jobs(2500)
    times = iter([True, False])
    moved = process(world.settings, world.services, minutes_later(1000), has_time=lambda: next(times))
    assert moved == {"moved": 1000}
    assert process(world.settings, world.services, minutes_later(1005)) == {"moved": 1500}


def test_the_event_of_a_failed_job_is_published_although_the_table_fails_for_another() -> None:
    world = many_jobs(2)
    (bundle,) = world.bundles()
    world.failed(bundle)
    first, second = sorted(world.jobs.records)
    world.jobs.records[first] = replace(world.jobs.records[first], attempts=world.settings.max_attempts)
    requeue = world.jobs.requeue

    def requeue_first(job_id: str, **options: object) -> Job | None:
        if job_id == second:
            raise TableUnavailable("Updating a job failed.")
        return requeue(job_id, **options)  # type: ignore[arg-type]

    world.jobs.requeue = requeue_first  # type: ignore[method-assign]
    with pytest.raises(TableUnavailable):
        process(world.settings, world.services, minutes_later(1000))
    assert [job.id for job in world.events.published] == [first]
