"""Locust users: one uploads photos to the drop folder and waits for their jobs, one requests results synchronously
(tests/load/mix.py), and one reads jobs by the API.

`make load` runs them for one minute. On another stack:
    MASKDROP_STACK=my-stack.json locust -f tests/load/locustfile.py
"""

from __future__ import annotations

import itertools
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locust import HttpUser, between, constant, events, task
from locust.env import Environment

from maskdrop.job import Source, dropped
from tests.load.mix import INVOCATIONS, REQUESTS, box_request, request_of
from tests.load.target import target

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*/*.png"))

PHOTO = Path(__file__).parents[2] / "samples" / "default" / "astronaut.png"

TIMEOUT_S = 120
"""Maximum time until a job finishes, in seconds; then it counts as failed.

In an account, an endpoint with 0 instances takes 5 to 10 minutes to start: start it before."""

POLL_S = 0.25

FAILURES_ALLOWED = 0.01
"""Maximum ratio of failed requests; above it, the exit code is 1."""


class StackUser(HttpUser):
    """A user with an API key and access to the inbox."""

    abstract = True

    def on_start(self) -> None:
        self.target = target()
        self.client.base_url = self.target.api_url
        self.client.headers["x-api-key"] = self.target.api_key
        self.client.verify = self.target.ca_bundle or True


class DropFolderUser(StackUser):
    """Uploads a photo, waits for its job, and repeats."""

    host = "set by the stack file"
    weight = 3
    wait_time = constant(0)

    def on_start(self) -> None:
        super().on_start()
        self.s3 = self.target.s3()
        self.photos = itertools.cycle(SAMPLES)

    @task
    def drop_photo(self) -> None:
        photo = next(self.photos)
        preset, body = photo.parent.name, photo.read_bytes()
        start = time.perf_counter()
        error: Exception | None = None
        try:
            source = self._put(f"inbox/{preset}/load/{uuid.uuid4().hex}-{photo.name}", body)
            self._report("put", "photo", start, len(body))
            self._wait(dropped(source, datetime.now(UTC)).id)
        except Exception as raised:  # noqa: BLE001  Locust lists it in its table of failures
            error = raised
        self._report("drop to done", preset, start, len(body), error)

    def _put(self, key: str, body: bytes) -> Source:
        written = self.s3.put_object(Bucket=self.target.inbox, Key=key, Body=body)
        return Source(self.target.inbox, key, written.get("VersionId") or written["ETag"].strip('"'))

    def _wait(self, job_id: str) -> None:
        """Waits until the job is done. Raises TimeoutError, or RuntimeError if the job failed."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            # 404 is correct until ingest has claimed the photo.
            with self.client.get(f"/v1/jobs/{job_id}", name="/v1/jobs/{id}, waiting", catch_response=True) as response:
                if response.status_code == 404:
                    response.success()
                job: dict[str, Any] = response.json() if response.status_code == 200 else {}
            if job.get("state") == "done":
                return
            if job.get("state") == "failed":
                raise RuntimeError(job["error"]["code"])
            time.sleep(POLL_S)
        raise TimeoutError(f"not finished within {TIMEOUT_S} s")

    def _report(self, kind: str, name: str, start: float, size: int, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(time.perf_counter() - start) * 1000,
            response_length=size,
            exception=error,
            context={},
        )


class ImageUser(StackUser):
    """Requests a result of each task synchronously, in turn, and a mask in the JSON of an older system."""

    host = "set by the stack file"
    weight = 1
    wait_time = between(0.5, 1.5)

    def on_start(self) -> None:
        super().on_start()
        self.photo = PHOTO.read_bytes()
        self.names = itertools.cycle(REQUESTS)

    @task(len(REQUESTS))
    def request_result(self) -> None:
        path, payload = request_of(next(self.names), self.photo)
        self.client.post(path, json=payload, name=path)

    @task
    def request_mask_of_box(self) -> None:
        self.client.post(INVOCATIONS, json=box_request(self.photo), name=INVOCATIONS)


class ApiUser(StackUser):
    """Lists the newest jobs and reads one, like a dashboard."""

    host = "set by the stack file"
    weight = 1
    wait_time = between(0.5, 1.5)

    @task
    def list_newest_jobs(self) -> None:
        for state in ("done", "failed"):
            response = self.client.get(
                "/v1/jobs", params={"state": state, "limit": "20"}, name=f"/v1/jobs?state={state}"
            )
            jobs = response.json()["jobs"] if response.status_code == 200 else []
            if jobs:
                self.client.get(f"/v1/jobs/{jobs[0]['id']}", name="/v1/jobs/{id}")

    @task
    def check_health(self) -> None:
        self.client.get("/v1/health", name="/v1/health")


@events.quitting.add_listener
def set_exit_code(environment: Environment, **_: Any) -> None:
    """Sets the exit code to 1 without requests or with too many failures."""
    total = environment.stats.total
    environment.process_exit_code = int(total.num_requests == 0 or total.fail_ratio > FAILURES_ALLOWED)
