"""A local stack whose services, functions, messages and clocks have faults, and its reconciliation.

`Harness` sends images and starts disturbances; `settle` ends all faults and lets the simulated time pass until nothing
changes; `findings` reconciles.
"""

from __future__ import annotations

import hashlib
import io
import random
import resource
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import psutil
from botocore.exceptions import BotoCoreError, ClientError
from PIL import Image

from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.registry import DynamoDBRegistry
from local import processes, stack
from local.config import LocalConfig
from local.connect import client, tls_verify
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, Job, Source, dropped, uploads_of
from maskdrop.reconcile import Finding, StoredResult, reconcile
from maskdrop.record import iso
from maskdrop.services import Selection
from maskdrop.wire import RESULT_OF
from tests.chaos.faulty import CONTROL, EXEMPT
from tests.chaos.plan import Event

THREADS = 8
OWNER = "operator"
"""Owner of the first key of a local stack."""

SIDE = 48
"""Width and height of the images in pixels: the engine takes most of the time of larger ones."""

API_SHARE = 5
"""One image in so many is sent by the API, the others into the drop folder. One in 20 of those is sent twice."""

BAD: tuple[bytes, ...] = (b"", b"This is not an image.\n" * 20)
"""Contents of every fiftieth file: it must fail with a code of its own."""

VISIBLE_S = 960.0
"""Advance of the clock while the stack settles: no message is delayed or hidden for longer."""

LEASES = timedelta(hours=7)
"""Age that `move_leases` gives to unfinished records: the sweep finds them after 6 hours and 20 minutes."""

EXPIRIES = 4
"""Expiries of all bundles while the endpoint has no capacity: SageMaker keeps a bundle for 6 hours, so one day."""

ROUNDS_MAX = 80
"""Rounds until the stack must be settled: 21 hours of simulated time."""


def programs(config: LocalConfig, seed: int) -> stack.Programs:
    """Returns the programs of the local stack, with faults."""
    emulator, sagemaker, model = stack.programs(config)
    path = str(Path(__file__).with_name("emulator.py"))
    argv = (emulator.argv[0], path, *emulator.argv[2:], str(seed))
    return (
        replace(emulator, argv=argv),
        replace(sagemaker, argv=(sys.executable, "-m", "tests.chaos.sagemaker", str(seed))),
        model,
    )


@contextmanager
def started(config: LocalConfig, seed: int) -> Iterator[Harness]:
    try:
        yield Harness(config, stack.up(config, start=programs(config, seed)), seed)
    finally:
        stack.down(config)


@dataclass
class Harness:
    """accepted: id of the job of each accepted source -> its name. disturbances: number of each kind."""

    config: LocalConfig
    stack: stack.Stack
    seed: int
    accepted: dict[str, str] = field(default_factory=dict)
    disturbances: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._clients = {name: self._client(name) for name in ("s3", "dynamodb", "sqs", "lambda")}
        self._http = httpx2.Client(trust_env=False, timeout=60, verify=tls_verify(self.config.ca_bundle))
        self.jobs = JobsTable(self._clients["dynamodb"], self.stack.table, keep_days=30)
        self._registry = DynamoDBRegistry(self._clients["dynamodb"], self.stack.registry)
        self._chance = random.Random(f"{self.seed} images")  # noqa: S311  no secret
        self._number = 0

    def _client(self, service: str) -> Any:
        made = client(self.config, service)
        made.meta.events.register("before-sign.*.*", lambda request, **_: request.headers.add_header(EXEMPT, "1"))
        return made

    # --- images ---

    def send(self, count: int) -> None:
        """Sends images: into the drop folder, some of them twice, and by the API. Some files are not images."""
        numbers = range(self._number, self._number + count)
        self._number += count
        with ThreadPoolExecutor(THREADS) as pool:
            for accepted in pool.map(self._send_one, numbers):
                self.accepted |= accepted

    def _send_one(self, number: int) -> dict[str, str]:
        body = BAD[number // 50 % len(BAD)] if number % 50 == 49 else image(number)
        if number % API_SHARE == 0 and body:
            return self._send_job(number, body)
        key = f"{INBOX_PREFIX}default/{self.seed}-{number}.jpg"
        return dict(self._put(key, body) for _ in range(2 if number % 20 == 7 else 1))

    def _put(self, key: str, body: bytes) -> tuple[str, str]:
        response = self._clients["s3"].put_object(Bucket=self.stack.inbox, Key=key, Body=body)
        source = Source(self.stack.inbox, key, response["VersionId"])
        return dropped(source, datetime.now(UTC)).id, f"{key} ({source.version_id})"

    def _send_job(self, number: int, body: bytes) -> dict[str, str]:
        """Repeats the request until the API accepts it."""
        key = f"{uploads_of(OWNER)}{uuid.uuid4().hex}/{number}.jpg"
        self._clients["s3"].put_object(Bucket=self.stack.inbox, Key=key, Body=body)
        request = {"source": {"bucket": self.stack.inbox, "key": key}}
        headers = {"x-api-key": self.stack.api_key, "Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + 180
        while True:
            with suppress(httpx2.TransportError):
                response = self._http.post(f"{self.stack.api_url}/v1/jobs", json=request, headers=headers)
                if response.status_code == 202:
                    return {response.json()["id"]: key}
                if response.status_code < 500 and '"retryable":true' not in response.text:
                    raise RuntimeError(f"POST /v1/jobs returned {response.status_code}: {response.text[:500]}")
            if time.monotonic() > deadline:
                raise RuntimeError("The API accepted no job for 180 s.")
            time.sleep(0.5)

    # --- faults ---

    def faults(self, **changes: Any) -> Counter[str]:
        """Changes the faults of calls and messages. Returns the faults that were injected so far."""
        counts: Counter[str] = Counter()
        for url in (self.stack.endpoint_url, self.stack.sagemaker_url):
            response = self._http.post(f"{url}{CONTROL}", json=changes)
            counts += Counter(response.raise_for_status().json()["counts"])
        return counts

    def disturb(self, event: Event) -> None:
        """Starts a disturbance and ends it after its duration."""
        self.disturbances[event.kind] += 1
        kinds: dict[str, Callable[[Event], None]] = {
            "kill_model": self._kill_model,
            "suspend_model": lambda one: _suspend(self._model(), one.seconds),
            "fill_disk": self._fill_disk,
            "kill_functions": self._kill_functions,
            "suspend_functions": lambda one: _suspend(self._functions(), one.seconds),
            "stop_consumers": self._stop_consumers,
            "service_down": self._service_down,
            "refuse_capacity": self._refuse_capacity,
            "move_leases": lambda _: self._move_leases(),
        }
        kinds[event.kind](event)

    def _kill_model(self, event: Event) -> None:
        if found := processes.find("model", self.config.state):
            with suppress(psutil.Error):
                found.kill()
        time.sleep(event.seconds)

    def _fill_disk(self, event: Event) -> None:
        """Forbids the model server to write files, as on a full disk; also the memory that it shares with its decoders
        is a file."""
        for process in self._model():
            _limit_files(process, 0)
        time.sleep(event.seconds)
        for process in self._model():  # some are new: they have inherited the limit
            _limit_files(process, None)

    def _kill_functions(self, event: Event) -> None:
        """Kills half of the execution environments, again and again."""
        end = time.monotonic() + event.seconds
        while time.monotonic() < end:
            workers = self._functions()
            for worker in self._chance.sample(workers, (len(workers) + 1) // 2):
                with suppress(psutil.Error):
                    worker.kill()
            time.sleep(0.5)

    def _stop_consumers(self, event: Event) -> None:
        mappings = self._clients["lambda"].list_event_source_mappings()["EventSourceMappings"]
        for enabled in (False, True):
            for mapping in mappings:
                self._clients["lambda"].update_event_source_mapping(UUID=mapping["UUID"], Enabled=enabled)
            if not enabled:
                time.sleep(event.seconds)

    def _service_down(self, event: Event) -> None:
        self.faults(down=[event.service])
        time.sleep(event.seconds)
        self.faults(down=[])

    def _refuse_capacity(self, event: Event) -> None:
        """The endpoint has no capacity for a simulated day: every bundle expires after 6 hours."""
        self._conditions(capacity=False)
        for _ in range(EXPIRIES):
            time.sleep(event.seconds / EXPIRIES)
            self._conditions(ttl_s=0.0)
            time.sleep(0.2)
            self._conditions(ttl_s=21_600.0)
            self._advance()
        self._conditions(capacity=True)

    def _move_leases(self) -> None:
        """Makes a tenth of the unfinished records look as old as LEASES, and sweeps."""
        jobs = [job for job in self._unfinished() if self._chance.random() < 0.1]
        self._age(jobs)
        self._invoke("sweep")

    def _conditions(self, **changes: Any) -> None:
        self._http.post(f"{self.stack.sagemaker_url}/control", json=changes).raise_for_status()

    def _model(self) -> list[psutil.Process]:
        found = processes.find("model", self.config.state)
        return _family(found) if found else []

    def _functions(self) -> list[psutil.Process]:
        """Returns the execution environments of the functions."""
        found = processes.find("emulator", self.config.state)
        return _family(found)[1:] if found else []

    # --- the end ---

    def settle(self) -> int:
        """Ends all faults. Lets simulated time pass until every record is final and every queue is empty. Returns the
        number of rounds."""
        self.faults(share=0.0, down=[])
        self._conditions(capacity=True, ttl_s=21_600.0)
        for number in range(ROUNDS_MAX):
            self._wait_until_idle()
            unfinished, messages = self._unfinished(), any(self.messages().values())
            if not unfinished and not messages:
                return number
            if messages:
                self._advance()
                self._wait_until_idle()
            else:
                self._age(unfinished)  # the message or the notification was dropped: the sweep finds them
            self._invoke("sweep")
            self._invoke("dead_letters")
        return ROUNDS_MAX

    def findings(self) -> list[Finding]:
        return reconcile(self.accepted, self.records(), self._results(), self.messages())

    def records(self) -> Iterator[Job]:
        return self._list(Selection())

    def messages(self) -> dict[str, int]:
        """Returns the number of messages of each queue, visible or not."""
        sqs, names = self._clients["sqs"], ("", "NotVisible", "Delayed")
        counts = {}
        for url in sqs.list_queues().get("QueueUrls", []):
            attributes = [f"ApproximateNumberOfMessages{name}" for name in names]
            found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=attributes)["Attributes"]
            counts[url.rpartition("/")[2]] = sum(map(int, found.values()))
        return counts

    def _results(self) -> dict[tuple[str, str], StoredResult]:
        bucket, s3 = self.stack.results, self._clients["s3"]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=RESULTS_PREFIX)
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]

        def read(key: str) -> StoredResult:
            response = s3.get_object(Bucket=bucket, Key=key)
            body = response["Body"].read()
            return StoredResult(response["Metadata"].get(RESULT_OF, ""), len(body), hashlib.sha256(body).hexdigest())

        with ThreadPoolExecutor(THREADS) as pool:
            return {(bucket, key): stored for key, stored in zip(keys, pool.map(read, keys), strict=True)}

    def _list(self, selection: Selection) -> Iterator[Job]:
        before, more = "", True
        while more:
            page = self.jobs.page(selection, before=before, limit=500)
            yield from page.jobs
            before, more = page.before, page.before != ""

    def _unfinished(self) -> list[Job]:
        return [*self._list(Selection(state="queued")), *self._list(Selection(state="submitted"))]

    def waiting(self) -> int:
        """Returns the number of messages and of images at the endpoint."""
        images = sum(item.get("images", 0) for item in self._registry.list("valve").values())
        return images + sum(self.messages().values())

    def _wait_until_idle(self) -> None:
        """Returns when no record and no message has changed for 1 s; for 10 s while a bundle is at the endpoint."""
        last, since = (-1, -1, -1), time.monotonic()
        while True:
            begin = time.monotonic()
            unfinished = self._unfinished()
            now = len(unfinished), sum(job.state == "queued" for job in unfinished), self.waiting()
            if now != last:
                last, since = now, begin
            patience_s = 10.0 if any("images" in item for item in self._registry.list("valve").values()) else 1.0
            if now == (0, 0, 0) or begin - since > patience_s:
                return
            time.sleep(max(0.2, time.monotonic() - begin))

    def _advance(self) -> None:
        """Lets VISIBLE_S pass: delayed and hidden messages become visible, and a pause of submissions ends."""
        for name in self._registry.list("valve"):
            self._registry.delete("valve", name)
        jobs = self._unfinished()
        self._age([job for job in jobs if job.state == "submitted"], timedelta(seconds=VISIBLE_S))
        self.faults(advance_s=VISIBLE_S)

    def _age(self, jobs: list[Job], by: timedelta = LEASES) -> None:
        """Moves the last change of records into the past."""

        def move(job: Job) -> None:
            earlier = iso(job.changed_at - by)
            with suppress(ClientError):  # the job has changed meanwhile
                self._clients["dynamodb"].update_item(
                    TableName=self.stack.table,
                    Key={"id": {"S": job.id}},
                    UpdateExpression="SET changed_at = :earlier, recency = :recency",
                    ConditionExpression="recency = :last",
                    ExpressionAttributeValues={
                        ":earlier": {"S": earlier},
                        ":recency": {"S": f"{earlier}#{job.id}"},
                        ":last": {"S": job.recency},
                    },
                )

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(move, jobs))

    def _invoke(self, function: str) -> None:
        listed = self._clients["lambda"].list_functions()["Functions"]
        [name] = [one["FunctionName"] for one in listed if one["Handler"] == f"lambdas.{function}.handler"]
        with suppress(ClientError, BotoCoreError):
            self._clients["lambda"].invoke(FunctionName=name, Payload=b"{}")


def image(number: int) -> bytes:
    """Returns a JPEG of a disc on a background; each number has other pixels."""
    file = io.BytesIO()
    picture = Image.linear_gradient("L").resize((SIDE, SIDE)).convert("RGB")
    picture.paste((number % 256, number // 256 % 256, 200), (SIDE // 4, SIDE // 4, 3 * SIDE // 4, 3 * SIDE // 4))
    picture.save(file, "JPEG")
    return file.getvalue()


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _suspend(family: list[psutil.Process], seconds: float) -> None:
    for process in family:
        with suppress(psutil.Error):
            process.suspend()
    time.sleep(seconds)
    for process in family:
        with suppress(psutil.Error):
            process.resume()


def _limit_files(process: psutil.Process, size: int | None) -> None:
    """Sets the maximum size in bytes of the files that a process writes; None for its hard limit."""
    with suppress(psutil.Error, ProcessLookupError):
        hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
