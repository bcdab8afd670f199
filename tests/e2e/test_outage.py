"""Tests an outage of the asynchronous endpoint."""

from __future__ import annotations

from maskdrop.job import Job
from tests.e2e.conftest import Running, wait_until

EXPIRIES = 8
"""SageMaker deletes a queued request after 6 hours: 8 times in 48 hours. Here it does so after TTL_S seconds."""

TTL_S = 0.2


def test_photos_survive_48_hours_without_capacity_and_spend_no_attempt(running: Running, photo: bytes) -> None:
    with running.conditions(capacity=False, ttl_s=TTL_S):
        ids = [running.put(photo) for _ in range(3)]
        bundles: set[str] = set()
        for _ in range(EXPIRIES):
            jobs = expired(running, ids, bundles)
            assert {job.attempts for job in jobs} == {0}
            bundles |= {job.bundle for job in jobs}
            submit_now(running, ids)
        expired(running, ids, bundles)
    submit_now(running, ids)
    finished = running.wait_for_end(ids).values()
    assert {(job.state, job.attempts) for job in finished} == {("done", 1)}


def expired(running: Running, ids: list[str], bundles: set[str]) -> list[Job]:
    """Waits until all jobs are queued again after a bundle that is not one of `bundles`, and returns them."""

    def current() -> list[Job]:
        jobs = [running.jobs.get(job_id) for job_id in ids]
        return [job for job in jobs if job and job.state == "queued" and job.bundle not in {*bundles, ""}]

    wait_until(lambda: len(current()) == len(ids), "the expiry of all bundles")
    return current()


def submit_now(running: Running, ids: list[str]) -> None:
    """Ends the pause after an expired bundle, and sends the messages of the jobs again: theirs are delayed."""
    running.end_pause()
    for job_id in ids:
        assert running.images.http.post(f"/v1/jobs/{job_id}/retry").status_code == 202
