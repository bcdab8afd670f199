"""Two kinds of user. The drop-folder user puts a photo and waits for its record; the API user reads lists and records.

`make load` runs both for a minute. By hand, against any stack:
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
from tests.load.target import target

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*/*.png"))

PATIENCE_S = 120
"""A photo that has not ended by then counts as failed. In an account the first ones wait 5 to 10 minutes for an
endpoint at zero: wake it before."""

POLL_S = 0.25

FAILURES_ALLOWED = 0.01
"""The share of failed requests above which the run exits with 1."""


class StackUser(HttpUser):
    """A user with a key to the API and an address in S3."""

    abstract = True

    def on_start(self) -> None:
        self.target = target()
        self.client.base_url = self.target.api_url
        self.client.headers["x-api-key"] = self.target.api_key
        self.client.verify = self.target.ca_bundle or True


class DropFolderUser(StackUser):
    """A studio: drops a photo, waits for its cut-out, drops the next."""

    host = "set by the stack's file"
    weight = 3
    wait_time = constant(0)

    def on_start(self) -> None:
        super().on_start()
        self.s3 = self.target.s3()
        self.photos = itertools.cycle(SAMPLES)

    @task
    def drop_a_photo(self) -> None:
        photo = next(self.photos)
        preset, body = photo.parent.name, photo.read_bytes()
        began = time.perf_counter()
        error: Exception | None = None
        try:
            source = self._put(f"inbox/{preset}/load/{uuid.uuid4().hex}-{photo.name}", body)
            self._report("put", "photo", began, len(body))
            self._wait(dropped(source, datetime.now(UTC)).id)
        except Exception as raised:  # noqa: BLE001  the rim: Locust shows it in its table of failures
            error = raised
        self._report("drop to done", preset, began, len(body), error)

    def _put(self, key: str, body: bytes) -> Source:
        written = self.s3.put_object(Bucket=self.target.inbox, Key=key, Body=body)
        return Source(self.target.inbox, key, written.get("VersionId") or written["ETag"].strip('"'))

    def _wait(self, job_id: str) -> None:
        """Until the job is done. Raises TimeoutError, or RuntimeError when it failed."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            # Until ingest has claimed the photo, 404 is the right answer.
            with self.client.get(f"/v1/jobs/{job_id}", name="/v1/jobs/{id}, waiting", catch_response=True) as response:
                if response.status_code == 404:
                    response.success()
                job: dict[str, Any] = response.json() if response.status_code == 200 else {}
            if job.get("state") == "done":
                return
            if job.get("state") == "failed":
                raise RuntimeError(job["error"]["code"])
            time.sleep(POLL_S)
        raise TimeoutError(f"not ended within {PATIENCE_S} s")

    def _report(self, kind: str, name: str, began: float, size: int, error: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=(time.perf_counter() - began) * 1000,
            response_length=size,
            exception=error,
            context={},
        )


class ApiUser(StackUser):
    """A dashboard: looks at the newest jobs and opens one."""

    host = "set by the stack's file"
    weight = 1
    wait_time = between(0.5, 1.5)

    @task
    def look_at_the_newest(self) -> None:
        for state in ("done", "failed"):
            response = self.client.get(
                "/v1/jobs", params={"state": state, "limit": "20"}, name=f"/v1/jobs?state={state}"
            )
            jobs = response.json()["jobs"] if response.status_code == 200 else []
            if jobs:
                self.client.get(f"/v1/jobs/{jobs[0]['id']}", name="/v1/jobs/{id}")

    @task
    def ask_for_its_health(self) -> None:
        self.client.get("/v1/health", name="/v1/health")


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """The exit code: 1 when nothing was done, or too much of it failed."""
    total = environment.stats.total
    environment.process_exit_code = int(total.num_requests == 0 or total.fail_ratio > FAILURES_ALLOWED)
