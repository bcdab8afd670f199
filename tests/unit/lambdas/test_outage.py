"""Outages of the endpoint for 48 hours, with a simulated clock, queue and endpoint: no photo is lost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from lambdas.adapters.endpoint import WAIT_S
from maskdrop.errors import EndpointUnavailable
from maskdrop.flow import admit, enqueue, fail_dead_letters, parse_message, record_bundle, sweep
from maskdrop.job import queued
from maskdrop.options import Options
from maskdrop.valve import DELAY_MAX_S
from maskdrop.wire import Bundle, split_s3_uri
from tests.fakes import NOW, FakeEndpoint, FakeQueue, FakeStorage, World, a_source, a_success
from tests.unit.lambdas.test_ingest import put

BATCH = 256
MAX_RECEIVES, VISIBILITY, RETENTION = 100, timedelta(seconds=240), timedelta(days=14)  # as in infra/queues.py
STEP = timedelta(minutes=5)
OUTAGE = timedelta(hours=48)
BACKLOG_MAX, BUNDLE_MAX = 50, 16


@dataclass
class Message:
    body: str
    sent_at: datetime
    visible_at: datetime
    receives: int = 0


@dataclass
class Clock:
    now: datetime = NOW


@dataclass
class SimulatedQueue(FakeQueue):
    clock: Clock = field(default_factory=Clock)
    messages: list[Message] = field(default_factory=list)

    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:
        assert 0 <= delay_s <= DELAY_MAX_S
        now = self.clock.now
        self.messages += [Message(body, now, now + timedelta(seconds=delay_s)) for body in bodies]

    def receive(self) -> list[Message]:
        return [message for message in self.messages if message.visible_at <= self.clock.now][:BATCH]


@dataclass
class SimulatedEndpoint(FakeEndpoint):
    """waiting: bundles in its queue, with the time of their submission. refuses: whether a submission is refused."""

    clock: Clock = field(default_factory=Clock)
    storage: FakeStorage = field(default_factory=FakeStorage)
    waiting: dict[str, tuple[Bundle, datetime]] = field(default_factory=dict)
    refuses: Callable[[], bool] = lambda: False

    def submit(self, bundle_id: str, input_uri: str) -> None:
        if self.refuses():
            raise EndpointUnavailable("Submitting to the endpoint failed: ValidationError.")
        super().submit(bundle_id, input_uri)
        self.waiting[bundle_id] = Bundle.from_bytes(self.storage.read(*split_s3_uri(input_uri))), self.clock.now

    @property
    def images(self) -> int:
        return sum(len(bundle.items) for bundle, _ in self.waiting.values())


class Deployment:
    """The functions, their queue and an endpoint, in steps of 5 minutes."""

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)  # noqa: S311  no secret
        self.clock = Clock()
        self.queue, self.endpoint = SimulatedQueue(clock=self.clock), SimulatedEndpoint(clock=self.clock)
        self.world = World(queue=self.queue, endpoint=self.endpoint, storage=self.endpoint.storage)
        self.world.settings = replace(self.world.settings, backlog_max=BACKLOG_MAX, bundle_max=BUNDLE_MAX)
        self.dead: list[Message] = []
        self.photos = 0
        self.backlog_max = self.messages_max = 0
        self.age_max = timedelta()

    def drop(self, count: int) -> None:
        """Adds photos: half of them in the inbox, half through the API."""
        for number in range(self.photos, self.photos + count):
            if number % 2:
                self.queue.send([put(f"inbox/default/{number}.jpg")])
            else:
                source = a_source(f"uploads/{number}.jpg")
                enqueue(queued(source, "default", Options(), self.clock.now, owner="shop"), self.world.services)
        self.photos += count

    def step(self, work: Callable[[], None]) -> None:
        """work: what the endpoint does in this step."""
        self.clock.now += STEP
        self.world.registry.now = self.clock.now
        while received := self.queue.receive():
            self.ingest(received)
        work()
        sweep(self.world.settings, self.world.services, self.clock.now)
        self.backlog_max = max(self.backlog_max, self.endpoint.images)
        self.messages_max = max(self.messages_max, len(self.queue.messages))
        self.age_max = max([self.age_max, *(self.clock.now - message.sent_at for message in self.queue.messages)])

    def ingest(self, received: list[Message]) -> None:
        settings, services, now = self.world.settings, self.world.services, self.clock.now
        jobs = [(message, job) for message in received for job in parse_message(message.body, now)]
        errors = admit([job for _, job in jobs], settings, services, now)
        returned = {id(message) for (message, _), error in zip(jobs, errors, strict=True) if error}
        for message in received:
            message.receives += 1
            message.visible_at = now + VISIBILITY
            if id(message) not in returned:
                self.queue.messages.remove(message)
            elif message.receives >= MAX_RECEIVES:
                self.queue.messages.remove(message)
                self.dead.append(message)
                fail_dead_letters(parse_message(message.body, now), "Too many receives.", services, now)

    def notify(self, bundle_id: str, *, completed: bool, times: int = 1) -> None:
        """Removes a bundle from the endpoint and delivers its notification `times` times."""
        bundle, _ = self.endpoint.waiting.pop(bundle_id)
        if completed:
            notification = self.world.completed(bundle, [a_success(item.id) for item in bundle.items])
        else:
            notification = self.world.failed(bundle, "The request expired.", started=False)
        for _ in range(times):
            record_bundle(notification, self.world.settings, self.world.services, self.clock.now)

    def expire(self) -> None:
        """No instance starts: SageMaker deletes each bundle after its time to live."""
        late = self.clock.now - timedelta(seconds=WAIT_S)
        for bundle in [bundle for bundle, (_, since) in self.endpoint.waiting.items() if since <= late]:
            self.notify(bundle, completed=False)

    def work(self) -> None:
        """The endpoint completes its bundles."""
        for bundle in list(self.endpoint.waiting):
            self.notify(bundle, completed=True)

    def run(self, duration: timedelta, work: Callable[[], None], photos_an_hour: int = 0) -> None:
        end = self.clock.now + duration
        while self.clock.now < end:
            if photos_an_hour and self.clock.now.minute == 0:
                self.drop(photos_an_hour)
            self.step(work)

    def check_all_done(self) -> None:
        jobs = self.world.jobs.records.values()
        assert len(jobs) == self.photos
        assert {job.state for job in jobs} == {"done"}
        assert {job.state for job in self.world.events.published} == {"done"}
        assert self.dead == []
        assert self.queue.messages == []
        assert self.backlog_max <= BACKLOG_MAX
        assert self.age_max < RETENTION / 100


def a_missing_endpoint(deployment: Deployment) -> Callable[[], None]:
    deployment.endpoint.refuses = lambda: True
    return lambda: None


def no_capacity(deployment: Deployment) -> Callable[[], None]:
    return deployment.expire


def throttled_invocations(deployment: Deployment) -> Callable[[], None]:
    """Half of the submissions are refused; bundles expire in the queue of the serverless endpoint."""
    deployment.endpoint.refuses = lambda: deployment.random.random() < 0.5
    return deployment.expire


@pytest.mark.parametrize("outage", [a_missing_endpoint, no_capacity, throttled_invocations])
def test_an_outage_of_48_hours_fails_no_photo(outage: Callable[[Deployment], Callable[[], None]]) -> None:
    deployment = Deployment()
    deployment.drop(104)
    deployment.run(OUTAGE, outage(deployment), photos_an_hour=2)
    assert deployment.photos == 200
    jobs = deployment.world.jobs.records.values()
    assert len(jobs) == deployment.photos  # all are visible to their users
    assert {job.state for job in jobs} <= {"queued", "submitted"}
    assert deployment.messages_max <= deployment.photos  # one message for each photo, however long it is queued
    deployment.endpoint.refuses = lambda: False
    deployment.run(timedelta(hours=2), deployment.work)
    deployment.check_all_done()
    assert {job.attempts for job in jobs} == {1}


def test_an_image_that_crashes_the_container_fails_alone_after_an_outage() -> None:
    deployment = Deployment()
    deployment.drop(20)
    deployment.run(OUTAGE, no_capacity(deployment))
    poison = min(deployment.world.jobs.records)

    def work() -> None:
        for bundle_id, (bundle, _) in list(deployment.endpoint.waiting.items()):
            if poison in {item.id for item in bundle.items}:
                deployment.world.failed(bundle, "The container crashed.")  # after it marked the bundle as started
                deployment.notify(bundle_id, completed=False)
            else:
                deployment.notify(bundle_id, completed=True)

    deployment.run(timedelta(hours=3), work)
    jobs = deployment.world.jobs.records
    assert {job.id for job in jobs.values() if job.state == "failed"} == {poison}
    assert {job.state for job in jobs.values()} == {"done", "failed"}
    assert jobs[poison].attempts == deployment.world.settings.max_attempts


@pytest.mark.parametrize("seed", range(5))
def test_lost_and_duplicate_notifications_and_messages_fail_no_photo(seed: int) -> None:
    deployment = Deployment(seed)
    chance = deployment.random.random

    def work() -> None:
        deployment.expire()
        for bundle in list(deployment.endpoint.waiting):
            if chance() < 0.02:
                deployment.notify(bundle, completed=chance() < 0.3, times=deployment.random.choice((0, 1, 1, 2)))
        # Messages of jobs only: a lost S3 event leaves no trace.
        messages = [message for message in deployment.queue.messages if "job_id" in message.body]
        if messages and chance() < 0.1:
            delay = deployment.random.randrange(DELAY_MAX_S)
            deployment.queue.send([deployment.random.choice(messages).body], delay_s=delay)
        if messages and chance() < 0.05:
            deployment.queue.messages.remove(deployment.random.choice(messages))

    deployment.endpoint.refuses = lambda: chance() < 0.3
    deployment.drop(100)
    deployment.run(timedelta(hours=24), work)
    deployment.endpoint.refuses = lambda: False
    # The sweep finds jobs without a message or a notification after 6 hours and 20 minutes.
    deployment.run(timedelta(hours=14), deployment.work)
    deployment.check_all_done()
    assert max(job.attempts for job in deployment.world.jobs.records.values()) <= 2
