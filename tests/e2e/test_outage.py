"""Tests an outage of the asynchronous endpoint."""

from __future__ import annotations

from maskdrop.job import Job, State
from tests.e2e.conftest import Running, wait_until

EXPIRIES = 8
"""SageMaker deletes a queued request after 6 hours: 8 times in 48 hours. Here it does so when the test says so."""


def test_photos_survive_48_hours_without_capacity_and_spend_no_attempt(running: Running, photo: bytes) -> None:
    with running.conditions(capacity=False):
        ids = [running.put(photo) for _ in range(3)]
        for _ in range(EXPIRIES):
            wait_for_all(running, ids, "submitted")
            with running.conditions(ttl_s=0):
                jobs = wait_for_all(running, ids, "queued")
            assert {job.attempts for job in jobs} == {0}
            submit_now(running, ids)
        wait_for_all(running, ids, "submitted")
    finished = running.wait_for_end(ids).values()
    assert {(job.state, job.attempts) for job in finished} == {("done", 1)}


def wait_for_all(running: Running, ids: list[str], state: State) -> list[Job]:
    """Waits until all jobs have a state at the same time, and returns them."""
    jobs: list[Job] = []

    def all_in_state() -> bool:
        jobs[:] = [job for job_id in ids if (job := running.jobs.get(job_id)) and job.state == state]
        return len(jobs) == len(ids)

    wait_until(all_in_state, f"{len(ids)} jobs {state}")
    return jobs


def submit_now(running: Running, ids: list[str]) -> None:
    """Sends the messages of queued jobs again: the pause after an expired bundle delayed theirs.

    A delayed message may arrive earlier: the retry of a job that it has submitted is refused with 409.
    """
    for job_id in ids:
        assert running.images.http.post(f"/v1/jobs/{job_id}/retry").status_code in {202, 409}
