"""Locust users of a stack. Each class is one kind of caller; tests/load/mixes.toml has their shares.

`make load` runs them. With distributed workers, after setting the variables of tests/load/settings.py everywhere:

    locust -f tests/load/locustfile.py --headless --master --expect-workers 4 --run-time 10m
    locust -f tests/load/locustfile.py --worker --master-host 10.0.0.1
"""

from __future__ import annotations

import functools
import itertools
import logging
import random
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from locust import HttpUser, LoadTestShape, User, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from maskdrop.job import Source, dropped
from tests.load.ledger import Accepted, Ledger
from tests.load.mix import REQUESTS, request_of, vendor_requests
from tests.load.observe import LOCAL_S, LocalStack, Sample, after_load, cost_usd
from tests.load.report import ERROR, JOB, OK, Outcomes, Report, exceeded, outcome
from tests.load.settings import LoadSettings
from tests.load.shapes import SHAPES
from tests.load.target import Target, target

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*/*.png"))

PHOTO = Path(__file__).parents[2] / "samples" / "default" / "astronaut.png"

TIMEOUT_S = 120
"""Seconds until a user that waits for its job continues without it. The accounting at the end still counts it."""

LEDGER_S = 2.0
"""Interval between two readings of finished jobs, in seconds."""

REQUEST_S = 60
"""Timeout of one request, in seconds: above the 29 s of API Gateway."""

SETTINGS = LoadSettings.from_env()

log = logging.getLogger("load")


class Run:
    """One run of this process: its outcomes, accepted jobs and samples of the stack."""

    def __init__(self) -> None:
        self.target: Target = target()
        self.outcomes = Outcomes()
        self.http = httpx2.Client(
            base_url=self.target.api_url,
            headers={"x-api-key": self.target.api_key},
            verify=self.target.ca_bundle or True,
            timeout=REQUEST_S,
            trust_env=False,
        )
        self.plain = httpx2.Client(verify=self.target.ca_bundle or True, timeout=REQUEST_S, trust_env=False)
        self.ledger = Ledger(self._fetch, on_end=self._ended)
        self.samples: list[Sample] = []
        self.began = datetime.now(UTC)
        self.local = LocalStack(self.target, self.http) if self.target.sagemaker_url else None

    def _fetch(self, path: str, query: dict[str, str]) -> dict[str, Any] | None:
        try:
            response = self.http.get(path, params=query)
        except httpx2.HTTPError as error:
            log.warning("reading %s failed: %s", path, type(error).__name__)
            return None
        body: dict[str, Any] | None = response.json() if response.status_code == 200 else None
        return body

    def _ended(self, entry: Accepted) -> None:
        failed = entry.job["state"] == "failed"
        code = entry.job["error"]["code"] if failed else ""
        finished = entry.at.timestamp() + entry.seconds
        self.outcomes.add(JOB, ERROR if failed else OK, entry.seconds, finished, code)
        events.request.fire(  # type: ignore[no-untyped-call]
            request_type=entry.kind,
            name=JOB,
            response_time=entry.seconds * 1000,
            response_length=0,
            exception=RuntimeError(code) if failed else None,
            context={},
        )

    def read_forever(self) -> None:
        while True:
            self.ledger.read()
            time.sleep(LEDGER_S)

    def sample_forever(self) -> None:
        while self.local:
            try:
                self.samples.append(self.local.sample())
            except Exception:  # an overloaded emulator must not end the sampling
                log.exception("a sample is missing")
            time.sleep(LOCAL_S)


run: Run
"""The run of this process, after `begin`."""


@events.test_start.add_listener
def begin(environment: Environment, **_: Any) -> None:
    """Starts reading finished jobs and sampling the stack. The master of distributed workers has no users."""
    global run
    run = Run()
    if run.local and SETTINGS.time_lapse and not isinstance(environment.runner, WorkerRunner):
        run.local.simulate(time_lapse=SETTINGS.time_lapse, instances_max=SETTINGS.instances)
    run.began = datetime.now(UTC)
    if not isinstance(environment.runner, MasterRunner):
        threading.Thread(target=run.read_forever, daemon=True).start()
    if not isinstance(environment.runner, WorkerRunner):
        threading.Thread(target=run.sample_forever, daemon=True).start()


class StackUser(HttpUser):
    """A user with an API key and access to the inbox. It sends each request once: client retries would hide failures.

    pause_s: without a rate, the time between two tasks in seconds.
    """

    abstract = True
    host = "set by the stack file"
    pause_s: float = 0

    def __init_subclass__(cls, **named: Any) -> None:
        super().__init_subclass__(**named)
        idle = SETTINGS.rates and not SETTINGS.rates.get(cls.__name__)
        cls.weight = 0 if idle else SETTINGS.limits.users.get(cls.__name__, 0)

    def on_start(self) -> None:
        self.client.base_url = run.target.api_url
        self.client.headers["x-api-key"] = run.target.api_key
        self.client.verify = run.target.ca_bundle or True
        if self.rate:
            # The users of a rate begin at random times of their interval: their sum is steady. A shorter range would
            # repeat a burst in every interval.
            time.sleep(random.uniform(0, 1 / self.rate))  # noqa: S311
        self._due = time.monotonic()

    @property
    def rate(self) -> float | None:
        """Tasks per second of this user; None: it starts a task when its last one has ended."""
        total = SETTINGS.rates.get(type(self).__name__)
        share = self.weight / sum(one.weight for one in USERS)
        return None if total is None else total / max(1, round(SETTINGS.users * share))

    def wait_time(self) -> float:
        run.outcomes.tasks[type(self).__name__] += 1
        if self.rate is None:
            return self.pause_s
        # The next task is due at a fixed interval after the last one. A user that is late starts at once.
        self._due = max(self._due + 1 / self.rate, time.monotonic())
        return self._due - time.monotonic()

    def request(self, method: str, path: str, *, name: str = "", **named: Any) -> Any:
        """Sends a request and counts its outcome. Returns the response; None after an error of the connection."""
        start = time.monotonic()
        with self.client.request(
            method, path, name=name or path, catch_response=True, timeout=REQUEST_S, **named
        ) as response:
            what = outcome(response.status_code, response.headers or {})
            if what == OK:
                response.success()
            else:
                response.failure(f"{what}: {response.status_code}")
        cause = f"{response.status_code} {response.text if response.status_code else response.error}"
        run.outcomes.add(name or path, what, time.monotonic() - start, time.time(), cause)
        return response if response.status_code else None

    def accepted(self, response: Any, kind: str) -> None:
        """Records the job of a 201 or 202 response."""
        if response is not None and response.status_code in (201, 202):
            self.follow(run.ledger.accept(response.json()["id"], kind))

    def follow(self, entry: Accepted) -> None:
        """Without a rate, waits for the end of the job."""
        if self.rate is None:
            entry.ended.wait(TIMEOUT_S)

    def counted(self, name: str, call: Callable[[], Any]) -> Any:
        """Counts a call to S3, which Locust's client does not send. Returns its result, None after an error."""
        start, result, error = time.monotonic(), None, None
        try:
            result = call()
        except Exception as raised:  # noqa: BLE001  counted as an error of the request
            error = raised
        seconds = time.monotonic() - start
        run.outcomes.add(name, ERROR if error else OK, seconds, time.time(), repr(error))
        self.environment.events.request.fire(
            request_type="S3", name=name, response_time=seconds * 1000, response_length=0, exception=error, context={}
        )
        return result


class DropFolderUser(StackUser):
    """Uploads photos to the drop folder."""

    def on_start(self) -> None:
        super().on_start()
        self.s3, self.photos = run.target.client("s3"), itertools.cycle(SAMPLES)

    @task
    def drop_photo(self) -> None:
        photo, now = next(self.photos), datetime.now(UTC)
        key = f"inbox/{photo.parent.name}/load/{uuid.uuid4().hex}-{photo.name}"
        bucket = run.target.inbox
        put = functools.partial(self.s3.put_object, Bucket=bucket, Key=key, Body=photo.read_bytes())
        if written := self.counted("put photo", put):
            source = Source(bucket, key, written.get("VersionId") or written["ETag"].strip('"'))
            self.follow(run.ledger.accept(dropped(source, now).id, "drop", now))


class JobUser(StackUser):
    """Uploads photos by presigned forms, creates jobs, and lists jobs like a dashboard."""

    def on_start(self) -> None:
        super().on_start()
        self.photo = PHOTO.read_bytes()

    @task(3)
    def create_job(self) -> None:
        form = self.request("POST", "/v1/uploads", json={"name": "photo.png", "content_type": "image/png"})
        if form is None or form.status_code != 201:
            return
        body = form.json()
        post = functools.partial(run.plain.post, body["url"], data=body["fields"], files={"file": self.photo})
        if self.counted("post upload", lambda: post().raise_for_status()):
            self.accepted(self.request("POST", "/v1/jobs", json={"source": {"upload": body["upload"]}}), "job")

    @task(1)
    def list_newest_jobs(self) -> None:
        for state in ("done", "failed"):
            self.request("GET", "/v1/jobs", name=f"/v1/jobs?state={state}", params={"state": state, "limit": "20"})

    @task(1)
    def read_usage(self) -> None:
        self.request("GET", "/v1/usage")


class ImageUser(StackUser):
    """Requests a result of each task synchronously, in turn. A 202 response is an accepted job."""

    pause_s = 1

    def on_start(self) -> None:
        super().on_start()
        self.photo, self.names = PHOTO.read_bytes(), itertools.cycle(REQUESTS)

    @task
    def request_result(self) -> None:
        path, payload = request_of(next(self.names), self.photo)
        self.accepted(self.request("POST", path, json=payload), "result")


class VendorUser(StackUser):
    """Sends the requests of other services' clients, in turn."""

    pause_s = 1

    def on_start(self) -> None:
        super().on_start()
        self.requests = itertools.cycle(vendor_requests(PHOTO.read_bytes()).items())

    @task
    def request_result(self) -> None:
        path, arguments = next(self.requests)
        self.request("POST", path, **arguments)


USERS: tuple[type[StackUser], ...] = (DropFolderUser, JobUser, ImageUser, VendorUser)


class Shape(LoadTestShape):
    """The shape that LOAD_SHAPE names."""

    use_common_options = True

    def tick(self) -> tuple[int, float, list[type[User]] | None] | None:
        fraction = self.get_run_time() / (SETTINGS.minutes * 60)  # type: ignore[no-untyped-call]
        if fraction >= 1:
            return None
        users = SHAPES[SETTINGS.shape](fraction, SETTINGS.users)
        return users, max(4.0, users), [one for one in USERS if one.weight]


@events.test_stop.add_listener
def end(environment: Environment, **_: Any) -> None:
    """Waits until the accepted jobs have ended, and writes the report. Sets the exit code by the limits of the mix."""
    seconds = (datetime.now(UTC) - run.began).total_seconds()
    if not isinstance(environment.runner, MasterRunner):
        run.ledger.settle(SETTINGS.settle_s)
    if isinstance(environment.runner, WorkerRunner):
        folder = SETTINGS.report / f"worker-{environment.runner.worker_index}"
    else:
        folder = SETTINGS.report
        if run.local and SETTINGS.time_lapse:
            _wait_for_scale_in()
            run.local.simulate(time_lapse=0)
        if not run.local:
            run.samples = after_load(run.target, run.began, sleep=time.sleep)
    report = Report(
        settings=SETTINGS,
        outcomes=run.outcomes,
        ledger=run.ledger,
        samples=run.samples,
        began=run.began.timestamp(),
        seconds=seconds,
        cost_usd=None if run.local else cost_usd(run.samples, run.target.usd_per_hour),
    )
    if not isinstance(environment.runner, MasterRunner):
        report.write(folder)
        # After the tables that Locust prints.
        events.quit.add_listener(  # type: ignore[no-untyped-call]
            lambda **_: print(*report.text(), f"Report: {folder}/report.html", sep="\n")
        )
        environment.process_exit_code = int(bool(exceeded(SETTINGS.limits, run.outcomes, run.ledger)))


def _wait_for_scale_in() -> None:
    """Samples until the simulated instances have stopped, at most for a simulated hour."""
    deadline = time.monotonic() + 3600 / SETTINGS.time_lapse
    while time.monotonic() < deadline and run.samples and run.samples[-1].ready:
        time.sleep(LOCAL_S)
