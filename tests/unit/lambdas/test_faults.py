"""Random faults in every call of the functions, in every order: each photo ends once, and only a poisonous one fails.

A fault is an error before or after the call took effect, a call that the AWS SDK sends twice, or the death of the
function. Messages are duplicated and delivered out of order; the mode of the endpoint changes while bundles wait in it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import pytest

from lambdas import dead_letters, ingest, invoke, record
from lambdas.adapters.endpoint import WAIT_S, QueuedEndpoint
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
from maskdrop.flow import STORAGE_ATTEMPTS, enqueue, sweep
from maskdrop.job import queued
from maskdrop.options import Options
from maskdrop.services import Services
from maskdrop.wire import STARTED_PREFIX, Bundle, BundleResponse, Notification, Outcome, split_s3_uri
from tests.fakes import NOW, FakeDeadLetters, FakeQueue, FakeStorage, World, a_failure, a_source, a_success
from tests.unit.lambdas.test_ingest import put

Mode = Literal["serverless", "gpu"]
STEP = timedelta(minutes=4)
MAX_RECEIVES, VISIBILITY = 100, timedelta(seconds=240)
BACKLOG_MAX: dict[Mode, int] = {"serverless": 24, "gpu": 96}
BUNDLE_MAX: dict[Mode, int] = {"serverless": 8, "gpu": 16}


class Death(BaseException):
    """The function ends at once, as after a timeout or without memory."""


@dataclass
class Faults:
    """share: probability of each fault of a call. down: errors that every call to a service raises."""

    random: random.Random
    share: float = 0.0
    down: set[type[MaskdropError]] = field(default_factory=set)

    def may_fail(self, error: type[MaskdropError]) -> None:
        if error in self.down:
            raise error("The service is down.")
        if self.chance():
            raise error("The service failed.")
        if self.chance(0.3):
            raise Death

    def chance(self, factor: float = 1.0) -> bool:
        return self.random.random() < self.share * factor


class Faulty:
    """A service whose calls may fail, before or after they take effect, or be sent twice."""

    def __init__(self, service: Any, error: type[MaskdropError], faults: Faults) -> None:
        self._service, self._error, self._faults = service, error, faults

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self._faults.may_fail(self._error)
            method = getattr(self._service, name)
            if name == "send" and self._faults.chance():
                method(args[0][: self._faults.random.randrange(len(args[0]) + 1)], **options)
                raise self._error("Some messages were not sent.")
            if self._faults.chance():
                method(*args, **options)  # its response is lost, and the SDK sends it again
            result = method(*args, **options)
            self._faults.may_fail(self._error)
            return result

        return call


@dataclass
class Message:
    body: str
    visible_at: datetime
    receives: int = 0


class Queue(FakeQueue):
    """Delivers messages in random order and some of them twice; after MAX_RECEIVES they are dead letters."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment = deployment
        self.messages: list[Message] = []

    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:
        assert 0 <= delay_s <= 900
        visible = self.deployment.now + timedelta(seconds=delay_s)
        self.messages += [Message(body, visible) for body in bodies]

    def consume(self, process: Callable[[dict[str, Any]], dict[str, Any]], batch: int) -> None:
        """Delivers every visible message once."""
        chance, now = self.deployment.random, self.deployment.now
        visible = [message for message in self.messages if message.visible_at <= now]
        chance.shuffle(visible)
        for start in range(0, len(visible), batch):
            received = visible[start : start + batch]
            for message in received:
                message.receives += 1
                message.visible_at = now + VISIBILITY
            records = [
                {"messageId": str(number), "body": message.body, "eventSource": "aws:sqs"}
                for number, message in enumerate(received)
            ]
            try:
                response = process({"Records": records})
                returned = {int(one["itemIdentifier"]) for one in response["batchItemFailures"]}
            except (Death, MaskdropError):
                returned = set(range(len(received)))
            for number, message in enumerate(received):
                if number not in returned and not self.deployment.faults.chance():
                    self.messages.remove(message)
                elif message.receives >= MAX_RECEIVES:
                    self.messages.remove(message)
                    self.deployment.dead.append(message.body)


class Deployment:
    """All functions, in steps of 4 minutes. poison: ids of the jobs whose images crash the container."""

    def __init__(self, seed: int, mode: Mode) -> None:
        self.random = random.Random(seed)  # noqa: S311  no secret
        self.now = NOW
        self.faults = Faults(self.random)
        self.world = World()
        self.dead: list[str] = []
        self.jobs_queue, self.results_queue, self.bundles_queue = Queue(self), Queue(self), Queue(self)
        self.waiting: dict[str, tuple[str, datetime]] = {}
        self.outage: Callable[[], bool] = lambda: False
        self.storage_fails: Callable[[], bool] = lambda: False
        self.results: dict[str, Outcome] = {}
        self.begun: Counter[str] = Counter()
        self.poison: set[str] = set()
        self.photos: set[str] = set()
        self.dropped = 0
        self.deploy(mode)

    def deploy(self, mode: Mode) -> None:
        """Changes the mode. The old endpoint is deleted with its queue."""
        self.mode = mode
        self.waiting.clear()
        self.bundles_queue.messages.clear()
        self.world.settings = replace(
            self.world.settings, endpoint=f"bulk-{mode}", backlog_max=BACKLOG_MAX[mode], bundle_max=BUNDLE_MAX[mode]
        )

    @property
    def services(self) -> Services:
        def faulty(service: Any, error: type[MaskdropError]) -> Any:
            return Faulty(service, error, self.faults)

        bundles = faulty(self.bundles_queue, QueueUnavailable)
        endpoint = (
            QueuedEndpoint(bundles, lambda: self.now)
            if self.mode == "serverless"
            else faulty(self, EndpointUnavailable)
        )
        return replace(
            self.world.services,
            jobs=faulty(self.world.jobs, TableUnavailable),
            jobs_queue=faulty(self.jobs_queue, QueueUnavailable),
            storage=faulty(self.world.storage, StorageUnavailable),
            events=faulty(self.world.events, EventsUnavailable),
            registry=faulty(self.world.registry, TableUnavailable),
            results_queue=faulty(self.results_queue, QueueUnavailable),
            bundles_queue=bundles,
            endpoint=endpoint,
            serverless=faulty(self, EndpointUnavailable),
        )

    # --- the endpoint ---

    def submit(self, bundle_id: str, input_uri: str) -> None:
        if self.outage():
            raise EndpointUnavailable("Submitting to the endpoint failed: ValidationError.")
        self.waiting[bundle_id] = input_uri, self.now

    def invoke(self, body: bytes) -> bytes:
        if self.outage():
            raise EndpointUnavailable("Invoking the endpoint failed: ThrottlingException.")
        return self.container(Bundle.from_bytes(body))

    def container(self, bundle: Bundle) -> bytes:
        """Processes the images in order. Raises EndpointFailed at an image that crashes the container."""
        self.world.storage.objects["results-bucket", f"{STARTED_PREFIX}{bundle.id}"] = b""
        outcomes = []
        for item in bundle.items:
            self.begun[item.id] += 1
            if item.id in self.poison:
                raise EndpointFailed("The container crashed.")
            if self.storage_fails():
                outcomes.append(a_failure(item.id, retryable=True))
                continue
            outcomes.append(self.results.setdefault(item.id, a_success(item.id)))
        return BundleResponse(bundle.id, "cpu", 800.0, None, tuple(outcomes)).to_bytes()

    def work(self) -> None:
        """The asynchronous endpoint processes or expires its bundles, in random order."""
        storage: FakeStorage = self.world.storage
        order = list(self.waiting.items())
        self.random.shuffle(order)
        for bundle_id, (uri, since) in order:
            if self.outage() and self.now - since < timedelta(seconds=WAIT_S):
                continue
            del self.waiting[bundle_id]
            if self.faults.chance():
                continue  # the notification is lost
            notification = Notification(bundle_id, False, uri, "", "The request expired.")
            if not self.outage():
                try:
                    response = self.container(Bundle.from_bytes(storage.read(*split_s3_uri(uri))))
                    storage.write("results-bucket", f"bundles/out/{bundle_id}.out", response, "")
                    output = f"s3://results-bucket/bundles/out/{bundle_id}.out"
                    notification = Notification(bundle_id, True, uri, output, "")
                except EndpointFailed as error:
                    notification = replace(notification, reason=error.message)
            self.results_queue.send([notification.to_body()] * (1 + self.faults.chance()))

    # --- time ---

    def drop(self, count: int) -> None:
        """Adds photos: half of them in the inbox, half through the API."""
        for number in range(self.dropped, self.dropped + count):
            key = f"inbox/default/{number}.jpg"
            if number % 2:
                self.jobs_queue.send([put(key)] * (1 + self.faults.chance()))
                self.photos.add(flow.parse_message(put(key), self.now)[0].id)  # type: ignore[union-attr]
            else:
                job = queued(a_source(key), "default", Options(), self.now, owner="shop")
                enqueue(job, replace(self.world.services, jobs_queue=self.jobs_queue))
                self.photos.add(job.id)
        self.dropped += count

    def step(self) -> None:
        self.now += STEP
        self.world.registry.now = self.now
        world, services = self.world, self.services
        self.jobs_queue.consume(lambda event: ingest.process(event, world.settings, services, self.now), 64)
        self.bundles_queue.consume(lambda event: invoke.process(event, world.settings, services, self.now), 1)
        if self.mode == "gpu":
            self.work()
        self.results_queue.consume(lambda event: record.process(event, world.settings, services, self.now), 10)
        for function in (self.sweep, self.process_dead_letters):
            with suppress(Death, MaskdropError):
                function(services)
        for job in world.jobs.records.values():
            assert 0 <= job.attempts <= STORAGE_ATTEMPTS

    def sweep(self, services: Services) -> None:
        sweep(self.world.settings, services, self.now)

    def process_dead_letters(self, services: Services) -> None:
        queue = FakeDeadLetters(list(self.dead))
        try:
            dead_letters.process(queue, self.world.settings, services, self.now)
        finally:
            for body in queue.deleted:
                self.dead.remove(body)

    def run(self, hours: float) -> None:
        end = self.now + timedelta(hours=hours)
        while self.now < end:
            self.step()

    def check(self) -> None:
        """Every photo has ended, with an event, and only those that crash the container have failed."""
        jobs = self.world.jobs.records
        assert set(jobs) == self.photos
        states = {job.id: job.state for job in jobs.values()}
        assert set(states.values()) <= {"done", "failed"}
        assert {job_id for job_id, state in states.items() if state == "failed"} == self.poison
        assert {(job.id, job.state) for job in self.world.events.published} >= set(states.items())
        for queue in (self.jobs_queue, self.bundles_queue, self.results_queue):
            assert queue.messages == []
        assert not self.waiting
        assert not self.dead


def in_order(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Calls `function` for every item, one at a time, and raises the first error after all calls, as threads do."""
    results, errors = [], []
    for item in items:
        try:
            results.append(function(item))
        except Exception as error:  # noqa: BLE001  raised below
            errors.append(error)
    if errors:
        raise errors[0]
    return results


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the order of calls depend on the seed alone."""
    monkeypatch.setattr(flow, "in_threads", in_order)
    monkeypatch.setattr(valve, "in_threads", in_order)


MODES: tuple[Mode, ...] = ("serverless", "gpu")
SEEDS = range(3)


def a_deployment(seed: int, mode: Mode) -> Deployment:
    """With 100 photos, two of which crash the container."""
    deployment = Deployment(seed, mode)
    deployment.drop(100)
    deployment.poison = set(deployment.random.sample(sorted(deployment.photos), 2))
    return deployment


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_after_any_faults_every_photo_ends_and_only_poisonous_ones_fail(seed: int, mode: Mode) -> None:
    deployment = a_deployment(seed, mode)
    deployment.faults.share = 0.005
    deployment.run(12)
    deployment.faults.share = 0
    deployment.run(16)
    deployment.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_outages_of_every_service_fail_no_photo(seed: int, mode: Mode) -> None:
    deployment = a_deployment(seed, mode)
    deployment.faults.share = 0.002
    services = [TableUnavailable, StorageUnavailable, QueueUnavailable, EventsUnavailable, EndpointUnavailable]
    for _ in range(6):
        deployment.faults.down = set(deployment.random.sample(services, 2))
        deployment.drop(5)
        deployment.run(deployment.random.randint(1, 4))
        deployment.faults.down = set()
        deployment.run(deployment.random.choice((0.2, 1)))
    deployment.faults.share = 0
    deployment.run(16)
    deployment.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_changes_of_the_mode_with_work_in_flight_lose_no_photo(seed: int, mode: Mode) -> None:
    deployment = a_deployment(seed, mode)
    deployment.faults.share = 0.002
    other: Mode = "gpu" if mode == "serverless" else "serverless"
    deployment.outage = lambda: True
    for now in (mode, other, mode):
        deployment.deploy(now)
        deployment.drop(30)
        deployment.run(deployment.random.randint(1, 9))
    deployment.outage = lambda: False
    deployment.faults.share = 0
    deployment.run(16)
    deployment.check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hours", [1, 5])
def test_while_the_container_cannot_reach_s3_no_photo_fails(hours: int, mode: Mode) -> None:
    deployment = Deployment(0, mode)
    deployment.drop(50)
    deployment.storage_fails = lambda: True
    deployment.run(hours)
    deployment.storage_fails = lambda: False
    deployment.run(2)
    deployment.check()


@pytest.mark.parametrize("mode", MODES)
def test_a_source_that_can_never_be_read_fails_in_the_end(mode: Mode) -> None:
    deployment = Deployment(0, mode)
    deployment.drop(5)
    deployment.storage_fails = lambda: True
    deployment.run(9)
    assert {job.state for job in deployment.world.jobs.records.values()} == {"failed"}
    assert max(deployment.begun.values()) == STORAGE_ATTEMPTS


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_that_users_retry_and_delete_meanwhile_end_once(seed: int, mode: Mode) -> None:
    deployment = a_deployment(seed, mode)
    deployment.faults.share = 0.002
    services = replace(deployment.world.services, jobs_queue=deployment.jobs_queue)
    for _ in range(30):
        deployment.run(0.4)
        job = deployment.random.choice(list(deployment.world.jobs.records.values()))
        if job.state == "failed":
            flow.retry(job, services, deployment.now)
        elif job.state != "submitted":
            flow.remove(job, deployment.world.settings, services)
            deployment.photos.discard(job.id)
            deployment.poison.discard(job.id)
    deployment.faults.share = 0
    deployment.run(16)
    deployment.check()
