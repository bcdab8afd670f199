"""Tests bulk processing through a serverless endpoint, on a stack of its own with the deployed roles enforced."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from PIL import Image

from local.config import ROOT, STAGE, STRICT, LocalConfig
from local.connect import tls_verify
from maskdrop.job import Job
from maskdrop.wire import BundleMessage
from tests.e2e.conftest import Running, environment, new_calls, started_stack, wait_until
from tests.e2e.test_drop_folder import bundle
from tests.e2e.test_jobs import a_job

PHOTOS = 20


@pytest.fixture(scope="module")
def serverless(request: pytest.FixtureRequest) -> Iterator[Running]:
    variables = {
        **environment(ROOT / ".local" / f"e2e-{os.getpid()}-serverless"),
        STAGE: "local-cpu",
        STRICT: str(int(shutil.which("openssl") is not None)),
    }
    with started_stack(LocalConfig.from_env(variables), request.session) as running:
        yield running


@pytest.fixture(scope="module")
def small(photo: bytes) -> bytes:
    """A photo of 256 x 256 pixels."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo)).resize((256, 256)).save(buffer, "JPEG")
    return buffer.getvalue()


def test_photos_are_processed_in_small_bundles_that_the_endpoint_does_not_throttle(
    serverless: Running, small: bytes
) -> None:
    ids = bundle(serverless, small, PHOTOS, "uploads/small/")
    assert states(serverless, ids) == {"done"}
    wait_until(serverless.queues_empty, "empty queues")
    assert '"outcome":"completed"' in outcomes(serverless)
    assert '"outcome":"refused"' not in outcomes(serverless)


def test_every_job_finishes_after_the_model_server_is_killed(serverless: Running, photo: bytes) -> None:
    before = serverless.model()
    ids = bundle(serverless, photo, 8, "uploads/killed/")
    wait_until(lambda: serverless.images_in_model() > 0, "a bundle in progress")
    before.kill()
    assert states(serverless, ids) == {"done"}
    assert serverless.model().pid != before.pid
    assert '"outcome":"failed"' in outcomes(serverless)
    wait_until(serverless.queues_empty, "empty queues")


@pytest.mark.parametrize("outage", [{"capacity": False}, {"deployed": False}], ids=["no capacity", "no endpoint"])
def test_an_outage_spends_neither_attempts_nor_receives(
    serverless: Running, small: bytes, outage: dict[str, bool]
) -> None:
    refused = outcomes(serverless).count('"outcome":"refused"')
    with serverless.conditions(**outage):
        ids = [serverless.put(small) for _ in range(4)]
        wait_until(lambda: outcomes(serverless).count('"outcome":"refused"') > refused, "a refused bundle")
        assert {job.state for job in current(serverless, ids)} <= {"submitted", "queued"}
    jobs = serverless.wait_for_end(ids)
    assert {(job.state, job.attempts) for job in jobs.values()} == {("done", 1)}
    wait_until(serverless.queues_empty, "empty queues")


def test_a_job_of_an_expired_bundle_is_queued_and_a_late_response_still_finishes_it(
    serverless: Running, small: bytes
) -> None:
    with serverless.conditions(capacity=False):
        job_id = serverless.put(small)
        wait_until(lambda: bool(current(serverless, [job_id])), "the job")
        [job] = current(serverless, [job_id])
        message = BundleMessage(
            bundle=job.bundle,
            input=f"s3://{serverless.stack.results}/bundles/in/{job.bundle}.json",
            expires_at=datetime.now(UTC),
        )
        serverless.send(serverless.stack.bundles_queue_url, message.to_body())
        wait_until(lambda: current(serverless, [job_id])[0].state == "queued", "the expiry of the bundle")
    [finished] = serverless.wait_for_end([job_id]).values()
    assert finished.state == "done"
    wait_until(serverless.queues_empty, "empty queues")
    assert current(serverless, [job_id]) == [finished]


def test_a_synchronous_request_is_processed_with_the_deployed_roles(serverless: Running, photo: bytes) -> None:
    headers = {"Content-Type": "image/jpeg"}
    response = serverless.images.http.post("/v1/cutouts", content=photo, headers=headers, timeout=60)
    assert response.status_code == 200


def test_an_edit_is_made_with_the_deployed_roles(serverless: Running, small: bytes) -> None:
    verify = tls_verify(serverless.config.ca_bundle)
    created = a_job(serverless.images.http, small, verify, task="replace", edit="white studio")
    job = serverless.wait_for_end([created["id"]])[created["id"]]
    assert (job.state, len(job.results)) == ("done", 1), job.error
    assert serverless.stages(job) == ["segment", "compose"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the strict mode needs the program openssl")
def test_the_calls_of_the_roles_are_those_that_tests_compare_with_the_policies(serverless: Running) -> None:
    """If this fails, record the calls: MASKDROP_RECORD_CALLS=1 python -m pytest tests/e2e/test_serverless.py"""
    assert new_calls(serverless) == set()


def current(running: Running, ids: list[str]) -> list[Job]:
    """Returns the jobs that exist."""
    return [job for job in map(running.jobs.get, ids) if job]


def states(running: Running, ids: list[str]) -> set[str]:
    """Returns the final states of the jobs."""
    return {job.state for job in running.wait_for_end(ids).values()}


def outcomes(running: Running) -> str:
    """Returns the log of `invoke` without spaces."""
    return running.log("invoke").replace(" ", "")
