"""A state machine of a few photos in which every call of a service is a step: functions and containers run at the same
time, in every order of their calls, and any call may fail, be repeated, or be the last one of its process.

Hypothesis chooses the steps. Afterwards the faults end, the deployment settles, and it is reconciled. `make chaos`
tries more examples: INTERLEAVINGS is their number.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from unittest.mock import patch

import pytest
from greenlet import GreenletExit, getcurrent, greenlet
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from lambdas import dead_letters, ingest, invoke, record
from lambdas.adapters.endpoint import INVOCATION_S, WAIT_S, QueuedEndpoint
from maskdrop import flow, valve
from maskdrop.errors import (
    EndpointFailed,
    EndpointUnavailable,
    EventsUnavailable,
    MaskdropError,
    QueueUnavailable,
    StorageUnavailable,
    TableUnavailable,
)
from maskdrop.job import Job, Source, queued, uploads_of
from maskdrop.options import Options
from maskdrop.reconcile import StoredResult, reconcile
from maskdrop.services import Services, Stored
from maskdrop.wire import (
    RESULT_OF,
    Bundle,
    BundleResponse,
    JobMessage,
    Notification,
    Outcome,
    split_s3_uri,
)
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.serving.bundle import ResultWriter, mark_started, read_source
from tests.fakes import NOW, FakeDeadLetters, FakeQueue, FakeStorage, World
from tests.unit.lambdas.test_faults import Death, in_order
from tests.unit.lambdas.test_ingest import put
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage as FakeS3
from tests.unit.sagemaker_model.serving.test_bundle import CUTOUT

EXAMPLES = int(os.environ.get("INTERLEAVINGS", "60"))
STEPS = 30
NUMBERS, CALLS = st.integers(0, 20), st.integers(0, 12) | st.just(99)
"""Which of several objects; and how many calls a process makes at once: most make 5 to 12. 99: all."""


PHASES = [Phase.generate]

KEYS = ("inbox/a.jpg", "inbox/b.jpg")
INBOX, RESULTS, OWNER = "inbox-bucket", "results-bucket", "shop"
LIMITS = Limits(max_bytes=1000, max_pixels=1000)

BATCH_MAX = 3
FUNCTION_S = 60
"""Timeout of a function in seconds; AWS ends it then."""

VISIBILITY = timedelta(seconds=240)
WAITS_S = (1, 60, 250, 900, 3 * 3600, 7 * 3600)
ROUND = timedelta(minutes=15)
ROUNDS_MAX = 300

Fault = Literal["none", "refused", "lost", "twice", "partial", "killed_before", "killed_after"]
FAULTS: tuple[Fault, ...] = ("none", "refused", "lost", "twice", "partial", "killed_before", "killed_after")


class Process:
    """A function or a container. It is suspended before each call of a service.

    started_at: time of its start. ended: whether it has returned, raised or been killed.
    """

    def __init__(self, run: Callable[[], None], started_at: datetime, killed: Callable[[], None]) -> None:
        self._greenlet = greenlet(run)
        self._killed = killed
        self.started_at = started_at
        self._resume(None)

    @property
    def ended(self) -> bool:
        return bool(self._greenlet.dead)

    def step(self, fault: Fault = "none") -> None:
        """Makes the next call, and runs until the one after it."""
        self._resume(fault)

    def finish(self) -> None:
        while not self.ended:
            self.step()

    def kill(self) -> None:
        self._resume("killed_before")

    def _resume(self, fault: Fault | None) -> None:
        try:
            self._greenlet.switch(fault) if fault else self._greenlet.switch()
        except Death:
            self._killed()


class Stepped:
    """A service whose calls are steps. error: of a call that fails."""

    def __init__(self, service: Any, error: type[MaskdropError]) -> None:
        self._service, self._error = service, error

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            fault: Fault = getcurrent().parent.switch()
            method = getattr(self._service, name)
            if fault == "killed_before":
                raise Death
            if fault == "refused":
                raise self._error("The service refused the call.")
            if fault == "partial" and name == "send":
                method(args[0][:-1], **options)
                raise self._error("Some messages were not sent.")
            if fault == "twice":
                method(*args, **options)  # the SDK lost the response and sends the request again
            result = method(*args, **options)
            if fault == "killed_after":
                raise Death
            if fault == "lost":
                raise self._error("The response was lost.")
            return result

        return call


class Objects(FakeStorage):
    """The objects of both buckets, for the functions."""

    def __init__(self, s3: FakeS3) -> None:
        super().__init__()
        self._s3 = s3

    def head(self, bucket: str, key: str) -> Stored | None:
        found = self._s3.head(bucket, key)
        return Stored(found.version_id or found.etag, found.bytes, found.metadata.get(RESULT_OF, "")) if found else None

    def read(self, bucket: str, key: str) -> bytes:
        return self._s3.read(bucket, key, lambda _: None)

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        self._s3.put(bucket, key, body)

    def delete(self, bucket: str, key: str) -> None:
        self._s3.objects.pop((bucket, key), None)


@dataclass
class Message:
    body: str
    visible_at: datetime


@dataclass
class Queue(FakeQueue):
    now: Callable[[], datetime] = lambda: NOW
    messages: list[Message] = field(default_factory=list)

    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:
        assert 0 <= delay_s <= 900
        self.messages += [Message(body, self.now() + timedelta(seconds=delay_s)) for body in bodies]

    def visible(self) -> list[Message]:
        return [message for message in self.messages if message.visible_at <= self.now()]


@dataclass
class Submitted:
    """A bundle at the asynchronous endpoint. container: that processes it; None while it is queued."""

    id: str
    uri: str
    since: datetime
    container: Process | None = None


class Deployment:
    """All functions, their queues, and an endpoint, with a clock that moves only by `wait`.

    may_fail: ids of jobs of which a message became a dead letter. poison: keys of sources that crash the container.
    received: how many containers have started each job. deleted, deleting: ids of the jobs that a caller deletes, and
    of those not deleted yet.
    """

    def __init__(self, *, serverless: bool) -> None:
        self.now = NOW
        self.serverless = serverless
        self.s3 = FakeS3()
        self.world = World(storage=Objects(self.s3))
        self.world.settings = replace(self.world.settings, bundle_max=2, backlog_max=6, max_attempts=2)
        self.jobs_queue, self.results_queue, self.bundles_queue = (Queue(now=self._now) for _ in range(3))
        self.dead: list[str] = []
        self.at_endpoint: dict[str, Submitted] = {}
        self.processes: list[Process] = []
        self.refuses = False
        self.half = False
        self.accepted: dict[str, str] = {}
        self.may_fail: set[str] = set()
        self.poison: set[str] = set()
        self.received: Counter[str] = Counter()
        self.versions = self.attempts = 0
        self.deleted: set[str] = set()
        self.deleting: set[str] = set()

    def _now(self) -> datetime:
        return self.now

    @property
    def queues(self) -> Mapping[str, Queue]:
        return {"jobs": self.jobs_queue, "results": self.results_queue, "bundles": self.bundles_queue}

    @property
    def services(self) -> Services:
        bundles: Any = Stepped(self.bundles_queue, QueueUnavailable)
        submitting: Any = Stepped(self, EndpointUnavailable)
        if self.serverless:
            submitting = QueuedEndpoint(bundles, self._now)
        return replace(
            self.world.services,
            jobs=Stepped(self.world.jobs, TableUnavailable),
            jobs_queue=Stepped(self.jobs_queue, QueueUnavailable),
            storage=Stepped(self.world.storage, StorageUnavailable),
            events=Stepped(self.world.events, EventsUnavailable),
            registry=Stepped(self.world.registry, TableUnavailable),
            results_queue=Stepped(self.results_queue, QueueUnavailable),
            bundles_queue=bundles,
            endpoint=submitting,
            serverless=self,
        )

    # --- processes ---

    def start(self, run: Callable[[], Any], killed: Callable[[], None] = lambda: None) -> Process:
        def guarded() -> None:
            try:
                run()
            except MaskdropError:
                pass  # the function failed: its messages become visible again
            except GreenletExit:
                pass

        process = Process(guarded, self.now, killed)
        self.processes.append(process)
        return process

    def running(self) -> list[Process]:
        self.processes = [one for one in self.processes if not one.ended]
        return self.processes

    def wait(self, seconds: float) -> None:
        """Lets time pass: functions and requests reach their timeouts, bundles expire."""
        self.now += timedelta(seconds=seconds)
        self.world.registry.now = self.now
        containers = [one.container for one in self.at_endpoint.values()]
        for process in self.running():
            if process not in containers and (self.now - process.started_at).total_seconds() > FUNCTION_S:
                process.kill()
        for one in list(self.at_endpoint.values()):
            waited = (self.now - (one.container.started_at if one.container else one.since)).total_seconds()
            if waited > (INVOCATION_S if one.container else WAIT_S):
                self.end_bundle(one, "The request timed out.")

    # --- the endpoint ---

    def submit(self, bundle_id: str, input_uri: str) -> None:
        if self.refuses:
            raise EndpointUnavailable("Submitting to the endpoint failed: ValidationError.")
        self.at_endpoint.setdefault(bundle_id, Submitted(bundle_id, input_uri, self.now))

    def invoke(self, body: bytes) -> bytes:
        if self.refuses:
            raise EndpointUnavailable("Invoking the endpoint failed: ThrottlingException.")
        try:
            return self.container(Bundle.from_bytes(body))
        except Death:
            raise EndpointFailed("The container crashed.") from None

    def process(self, one: Submitted) -> Process:
        """Starts the container with a bundle. If it is killed, the endpoint notifies of the failure."""

        def run() -> None:
            response = self.container(Bundle.from_bytes(self.world.storage.read(*split_s3_uri(one.uri))))
            key = f"bundles/out/{one.id}.out"
            self.world.storage.write(RESULTS, key, response, "application/json")
            self.end_bundle(one, output=f"s3://{RESULTS}/{key}")

        one.container = self.start(run, lambda: self.end_bundle(one, "The container crashed."))
        return one.container

    def end_bundle(self, one: Submitted, reason: str = "", output: str = "") -> None:
        """Notifies of the outcome of a bundle, unless it was notified before."""
        if self.at_endpoint.pop(one.id, None):
            self.results_queue.send([Notification(one.id, bool(output), one.uri, output, reason).to_body()])

    def container(self, bundle: Bundle) -> bytes:
        """Processes the images of a bundle as the model server does. `half`: its response lacks the last image."""
        storage: Any = Stepped(self.s3, StorageUnavailable)
        half, self.half = self.half, False
        mark_started(bundle, storage)
        self.received.update(item.id for item in bundle.items)
        outcomes = []
        for item in bundle.items:
            writer = ResultWriter(item, storage)
            try:
                outcome = writer.existing()
                if outcome is None:
                    read_source(item.source, storage, LIMITS)
                    if item.source.key in self.poison:
                        raise Death
                    self.attempts += 1  # two attempts of one image have different pixels
                    outcome = writer.write(replace(CUTOUT, data=f"{item.id} {self.attempts}".encode()))
            except MaskdropError as error:
                outcome = Outcome(item.id, error=error.info)
            outcomes.append(outcome)
        return BundleResponse(bundle.id, "cpu", 800.0, None, tuple(outcomes[:-1] if half else outcomes)).to_bytes()

    # --- the functions ---

    def drop(self, key: str, *, times: int = 1) -> None:
        """Puts a new version of a photo into the inbox. S3 delivers its event once or twice."""
        source = self._upload(key)
        event = json.loads(put(key, source.version_id))
        event["Records"][0]["s3"]["object"]["sequencer"] = source.sequencer
        body = json.dumps(event)
        self.jobs_queue.send([body] * times)
        [job] = flow.parse_message(body, self.now)
        assert isinstance(job, Job)
        self.accepted[job.id] = f"{key} {source.version_id}"

    def _upload(self, key: str) -> Source:
        self.versions += 1
        version = f"{self.versions:04X}"
        self.s3.put(INBOX, key, version.encode(), version_id=version)
        return Source(INBOX, key, version, 4, version)

    def request(self) -> None:
        """A caller creates a job. It is accepted when the function returns."""
        job = queued(
            self._upload(f"{uploads_of(OWNER)}{self.versions}.jpg"), "default", Options(), self.now, owner=OWNER
        )

        def run() -> None:
            flow.enqueue(job, self.services)
            if job.id not in self.deleted:
                self.accepted[job.id] = job.source.key

        self.start(run)

    def settle_requests(self) -> None:
        """Callers get their responses."""
        for process in self.running():
            process.finish()

    def retry(self, job: Job) -> None:
        self.start(lambda: flow.retry(job, self.services, self.now))

    def delete(self, job_id: str) -> None:
        """A caller deletes a job. The caller repeats the request until it succeeds."""

        def run() -> None:
            job = self.services.jobs.get(job_id)
            if job:
                flow.remove(job, self.world.settings, self.services)
            self.deleting.discard(job_id)

        self.deleted.add(job_id)
        self.deleting.add(job_id)
        self.accepted.pop(job_id, None)
        self.start(run)

    def deliver(self, name: str, messages: list[Message]) -> Process:
        """Starts the function of a queue with a batch."""
        queue, now = self.queues[name], self.now
        for message in messages:
            message.visible_at = now + VISIBILITY
        records = [
            {"messageId": str(number), "body": message.body, "eventSource": "aws:sqs"}
            for number, message in enumerate(messages)
        ]
        process = {"jobs": ingest.process, "results": record.process, "bundles": invoke.process}[name]

        def run() -> None:
            response = process({"Records": records}, self.world.settings, self.services, now)
            returned = {int(one["itemIdentifier"]) for one in response["batchItemFailures"]}
            for number, message in enumerate(messages):
                if number not in returned and message in queue.messages:
                    queue.messages.remove(message)

        return self.start(run)

    def sweep(self) -> Process:
        return self.start(lambda: flow.sweep(self.world.settings, self.services, self.now))

    def process_dead_letters(self) -> Process:
        queue, now = FakeDeadLetters(list(self.dead)), self.now

        def run() -> None:
            dead_letters.process(queue, self.world.settings, self.services, now)
            for body in queue.deleted:
                if body in self.dead:
                    self.dead.remove(body)

        return self.start(run)

    def bury(self, name: str, message: Message) -> None:
        """A message reaches its maximum number of receives."""
        self.queues[name].messages.remove(message)
        self.dead.append(message.body)
        if name == "jobs":
            ones = flow.parse_message(message.body, self.now)
            self.may_fail |= {one.job_id if isinstance(one, JobMessage) else one.id for one in ones}

    # --- the end ---

    def settle(self, disturb: Callable[[str, Process], None] | None = None) -> None:
        """Ends the faults and lets time pass until nothing is left to do. disturb: called with the kind of each new
        process before it runs to its end: a queue, "endpoint", "sweep" or "dead_letters"."""
        self.refuses = self.half = False

        def finish(kind: str, process: Process) -> None:
            if disturb:
                disturb(kind, process)
            process.finish()

        for _ in range(ROUNDS_MAX):
            while running := self.running():
                for process in running:
                    process.finish()
            for job_id in sorted(self.deleting):
                self.delete(job_id)
            for name, queue in self.queues.items():
                if visible := queue.visible():
                    finish(name, self.deliver(name, visible))
            for one in list(self.at_endpoint.values()):
                finish("endpoint", self.process(one))
            if self.dead:
                finish("dead_letters", self.process_dead_letters())
            finish("sweep", self.sweep())
            if self.is_settled():
                return
            self.wait(ROUND.total_seconds())

    def is_settled(self) -> bool:
        busy = any(queue.messages for queue in self.queues.values()) or self.at_endpoint or self.dead or self.running()
        return not busy and not self.deleting and all(job.finished_at for job in self.world.jobs.records.values())

    def check(self) -> None:
        """Nothing was lost, and only those jobs have failed that may."""
        jobs = self.world.jobs.records
        results = {
            place: StoredResult(stored.metadata[RESULT_OF], stored.bytes, hashlib.sha256(body).hexdigest())
            for place, (stored, body) in self.s3.objects.items()
            if place[1].startswith("results/")
        }
        messages = {name: len(queue.messages) for name, queue in self.queues.items()}
        assert reconcile(self.accepted, jobs.values(), results, messages) == []
        for job in jobs.values():
            assert job.state == "done" or self._had_reason_to_fail(job), job.error
        published = {(job.id, job.state) for job in self.world.events.published}
        # A sweep that is killed between the record of a failed job and its event publishes no event.
        assert published >= {(job.id, job.state) for job in jobs.values() if not _failed_by_sweep(job)}

    def _had_reason_to_fail(self, job: Job) -> bool:
        assert job.error
        if job.error.code == "source_replaced":
            return self.s3.objects[INBOX, job.source.key][0].version_id != job.source.version_id
        tried = self.received[job.id] >= self.world.settings.max_attempts
        return job.error.code == "gave_up" and (job.id in self.may_fail or tried)


def _failed_by_sweep(job: Job) -> bool:
    return job.error is not None and "no response within" in job.error.message


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Makes the order of calls depend on the steps alone, and writes no logs, which would take most of the time."""
    with patch.object(flow, "in_threads", in_order), patch.object(valve, "in_threads", in_order):
        logging.disable()
        yield
        logging.disable(logging.NOTSET)


def one_fault(kind: str, number: int, fault: Fault, *, again: bool, serverless: bool) -> bool:
    """Processes photos with one fault, in the `number`-th call of the first process of a kind. Returns whether it
    has so many calls. again: the messages of that process are delivered a second time, just after the fault."""
    one, faults = Deployment(serverless=serverless), 0
    one.drop(KEYS[0])
    one.request()
    if kind == "results":  # an image that crashes the container fails in its first attempt
        one.drop(KEYS[1])
        one.poison.add(KEYS[1])
        one.world.settings = replace(one.world.settings, max_attempts=1, bundle_max=1)
    if kind == "dead_letters":
        one.settle_requests()
        for message in list(one.jobs_queue.messages):
            one.bury("jobs", message)
    if kind == "sweep":  # the endpoint is deleted with its bundles
        one.settle_requests()
        one.deliver("jobs", one.jobs_queue.visible()).finish()
        one.at_endpoint.clear()
        one.bundles_queue.messages.clear()
        one.wait(7 * 3600)
    seen = False

    def disturb(of: str, process: Process) -> None:
        nonlocal seen, faults
        if of != kind or seen:
            return
        seen = True
        messages = [replace(message) for message in one.queues[kind].messages] if again else []
        for call in range(number):
            if not process.ended:
                faults += call == number - 1
                process.step(fault if call == number - 1 else "none")
        if messages:
            one.queues[kind].messages += messages
            one.deliver(kind, messages).finish()

    one.settle(disturb)
    one.check()
    return faults > 0


@pytest.mark.parametrize("serverless", [False, True], ids=["asynchronous", "serverless"])
@pytest.mark.parametrize(
    ("kind", "again"),
    [
        *itertools.product(("jobs", "bundles", "results"), (False, True)),
        *itertools.product(("endpoint", "sweep", "dead_letters"), (False,)),
    ],
)
def test_after_a_fault_of_any_call_every_photo_ends_once_with_its_result(
    kind: str, again: bool, serverless: bool
) -> None:
    calls = 0
    while sum(one_fault(kind, calls + 1, fault, again=again, serverless=serverless) for fault in FAULTS):
        calls += 1
    assert (calls > 0) == (kind != ("endpoint" if serverless else "bundles"))


class Interleavings(RuleBasedStateMachine):
    """Every rule is one event. Rules take their objects by number, so that hypothesis can shrink them."""

    @initialize(serverless=st.booleans())
    def deploy(self, serverless: bool) -> None:
        self.one = Deployment(serverless=serverless)
        self.one.drop(KEYS[0])

    @rule(key=st.sampled_from(KEYS), times=st.integers(1, 2), poison=st.booleans())
    def drop(self, key: str, times: int, poison: bool) -> None:
        if len(self.one.accepted) < 4:
            self.one.drop(key, times=times)
            if poison and key == KEYS[1]:
                self.one.poison.add(key)

    @rule()
    def request(self) -> None:
        if len(self.one.accepted) < 4:
            self.one.request()

    @precondition(lambda self: any(queue.visible() for queue in self.one.queues.values()))
    @rule(number=NUMBERS, size=st.integers(1, BATCH_MAX), calls=CALLS, fault=st.sampled_from(FAULTS))
    def deliver(self, number: int, size: int, calls: int, fault: Fault) -> None:
        name, message = self._message(number)
        others = [one for one in self.one.queues[name].visible() if one is not message]
        self._run(self.one.deliver(name, [message, *others][:size]), calls, fault)

    @precondition(lambda self: self.one.running())
    @rule(number=NUMBERS, calls=CALLS, fault=st.sampled_from(FAULTS))
    def step(self, number: int, calls: int, fault: Fault) -> None:
        running = self.one.running()
        self._run(running[number % len(running)], calls, fault)

    @precondition(lambda self: any(one.container is None for one in self.one.at_endpoint.values()))
    @rule(number=NUMBERS, half=st.booleans(), calls=CALLS, fault=st.sampled_from(FAULTS))
    def process(self, number: int, half: bool, calls: int, fault: Fault) -> None:
        waiting = [one for one in self.one.at_endpoint.values() if one.container is None]
        self.one.half = half
        self._run(self.one.process(waiting[number % len(waiting)]), calls, fault)

    def _run(self, process: Process, calls: int, fault: Fault) -> None:
        """Makes some calls of a process; the last one has the fault. More than it makes: the process returns."""
        for call in range(calls):
            if not process.ended:
                process.step(fault if call == calls - 1 else "none")

    @rule(seconds=st.sampled_from(WAITS_S))
    def wait(self, seconds: float) -> None:
        self.one.wait(seconds)

    @rule(calls=CALLS, fault=st.sampled_from(FAULTS))
    def sweep(self, calls: int, fault: Fault) -> None:
        self._run(self.one.sweep(), calls, fault)

    @precondition(lambda self: self.one.dead)
    @rule(calls=CALLS, fault=st.sampled_from(FAULTS))
    def process_dead_letters(self, calls: int, fault: Fault) -> None:
        self._run(self.one.process_dead_letters(), calls, fault)

    @rule(refuses=st.booleans())
    def refuse(self, refuses: bool) -> None:
        self.one.refuses = refuses

    @precondition(lambda self: any(queue.messages for queue in self.one.queues.values()))
    @rule(number=NUMBERS, change=st.sampled_from(["lose", "duplicate", "bury"]))
    def change_message(self, number: int, change: str) -> None:
        name, message = self._message(number, visible=False)
        messages = self.one.queues[name].messages
        if change == "duplicate":
            messages.append(replace(message))
        elif change == "bury":
            self.one.bury(name, message)
        elif '"Records"' not in message.body:  # S3 delivers each event at least once
            messages.remove(message)

    @precondition(lambda self: self.one.world.jobs.records)
    @rule(number=NUMBERS, delete=st.booleans())
    def change_job(self, number: int, delete: bool) -> None:
        jobs = list(self.one.world.jobs.records.values())
        job = jobs[number % len(jobs)]
        if delete:
            self.one.delete(job.id)
        elif job.state in ("failed", "queued"):
            self.one.retry(job)

    def _message(self, number: int, *, visible: bool = True) -> tuple[str, Message]:
        found = [
            (name, message)
            for name, queue in self.one.queues.items()
            for message in (queue.visible() if visible else queue.messages)
        ]
        return found[number % len(found)]

    def teardown(self) -> None:
        if hasattr(self, "one"):
            self.one.settle()
            self.one.check()


def test_after_any_interleaving_every_photo_ends_once_with_its_result() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Interleavings,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize="INTERLEAVINGS" not in os.environ,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
