"""One real stack for all end-to-end tests, in a state folder and on ports of its own, beside any that is up already."""

from __future__ import annotations

import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil
import pytest
from PIL import Image

from lambdas.adapters.jobs import JobsTable
from local import processes, stack
from local.config import AWS_PORT, MODEL_PORT, ROOT, SAGEMAKER_PORT, STATE_DIR, LocalConfig
from local.connect import client
from local.images import ENDED, ImageClient
from maskdrop.job import INBOX_PREFIX, Job
from tests.ports import free_ports

END_S = 180.0
"""A job whose container died is tried again after 5 s, then 30 s; the rest is for slow machines."""


@dataclass(frozen=True)
class Running:
    """The stack under test, and what tests do with it."""

    config: LocalConfig
    stack: stack.Stack
    pictures: ImageClient
    jobs: JobsTable

    def put(self, body: bytes, key: str | None = None) -> str:
        """Drops a photo, under a name of its own unless told, and returns its job's id."""
        return self.pictures.upload(key or f"default/{uuid.uuid4().hex}.jpg", body)

    def wait_for_end(self, ids: Iterable[str], timeout_s: float = END_S) -> dict[str, Job]:
        """Every job, done or failed. Fails the test when one has not ended in time."""
        ended: dict[str, Job] = {}
        waiting = set(ids)

        def all_ended() -> bool:
            for job_id in list(waiting):
                job = self.jobs.get(job_id)
                if job and job.state in ENDED:
                    ended[job_id] = job
                    waiting.remove(job_id)
            return not waiting

        wait_until(all_ended, f"the end of {len(waiting)} jobs", timeout_s)
        return ended

    def result(self, job: Job) -> Image.Image:
        """The image that a job made."""
        assert job.result, job.error
        return Image.open(io.BytesIO(self.object(job.result.bucket, job.result.key)))

    def object(self, bucket: str, key: str) -> bytes:
        body: bytes = self.pictures.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def model(self) -> psutil.Process:
        """The process of the model server."""
        process = processes.find("model", self.config.state)
        assert process, "the model server does not run"
        return process

    def at_work(self) -> float:
        """Images in the model server, waiting or in work."""
        text = httpx2.get(f"{self.stack.model_url}/metrics", trust_env=False).text
        [line] = [line for line in text.splitlines() if line.startswith("maskdrop_queue_pictures ")]
        return float(line.split()[1])

    @contextmanager
    def model_held(self) -> Iterator[None]:
        """Nothing is worked on meanwhile: the model server stands still."""
        process = self.model()
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def log(self, function: str) -> str:
        """All that a function has logged."""
        logs = client(self.config, "logs")
        pages = logs.get_paginator("filter_log_events").paginate(logGroupName=f"/maskdrop/dev/{function}")
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def send(self, queue_url: str, body: str) -> None:
        client(self.config, "sqs").send_message(QueueUrl=queue_url, MessageBody=body)

    def settled(self) -> bool:
        """Whether no queue holds a message."""
        here = self.stack
        sqs = client(self.config, "sqs")
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return all(
            count == "0"
            for url in (here.intake_queue_url, here.jobs_queue_url, here.results_queue_url)
            for count in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
        )


def wait_until(held: Callable[[], bool], what: str, timeout_s: float = END_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not held():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come within {timeout_s:.0f} s")
        time.sleep(0.1)


def environment(state: Path) -> dict[str, str]:
    """The variables of a stack of its own."""
    ports = map(str, free_ports(3))
    return {STATE_DIR: str(state), **dict(zip((AWS_PORT, SAGEMAKER_PORT, MODEL_PORT), ports, strict=True))}


@contextmanager
def brought_up(config: LocalConfig, session: pytest.Session) -> Iterator[Running]:
    try:
        here = stack.up(config)
        pictures = ImageClient(config, here)
        jobs = JobsTable(client(config, "dynamodb"), here.table, keep_days=30)
        yield Running(config, here, pictures, jobs)
    finally:
        stack.down(config)
        if not session.testsfailed:  # else the logs may tell why
            shutil.rmtree(config.state, ignore_errors=True)


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    config = LocalConfig.from_env(environment(ROOT / ".local" / f"e2e-{os.getpid()}"))
    with brought_up(config, request.session) as stack_under_test:
        yield stack_under_test


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A person before a wall, 512 x 512."""
    return (ROOT / "samples" / "default" / "astronaut.png").read_bytes()


@pytest.fixture
def api(running: Running) -> Iterator[httpx2.Client]:
    """The API without a key."""
    with httpx2.Client(base_url=running.stack.api_url, timeout=30, trust_env=False) as http:
        yield http


def inbox_key(name: str) -> str:
    return INBOX_PREFIX + name
