from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import cv2
import numpy as np
import pytest

from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import DeadlineExceeded, NotAllowed, QueueUnavailable, StorageUnavailable
from sagemaker_model.serving.queue import POLL_S
from sagemaker_model.serving.queue_worker import ONCE_POLL_S, QueueWorker, work
from sagemaker_model.serving.runtime import Runtime, in_flight
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half
from tests.unit.sagemaker_model.serving.fake_queue import FakeQueue
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage

DEFAULT = DEFAULT_ENGINE["cutout"]
SETTINGS = ServerSettings(device="cpu", workers=2, deadline_s=30, queue_url="https://sqs/q", results_bucket="results")
JPEG = cv2.imencode(".jpg", np.full((30, 40, 3), 90, np.uint8))[1].tobytes()
EVENTS = Path(__file__).parents[3] / "events"


@dataclass
class World:
    """A worker's surroundings in memory."""

    settings: ServerSettings = SETTINGS
    queue: FakeQueue = field(default_factory=FakeQueue)
    storage: FakeStorage = field(default_factory=FakeStorage)
    engine: Half = field(default_factory=Half)

    def drop(self, *keys: str, body: bytes = JPEG) -> None:
        """Photos, and one message of S3's that tells of them."""
        self.queue.send(json.dumps({"Records": [self.record(key, body) for key in keys]}))

    def record(self, key: str, body: bytes = JPEG) -> dict[str, Any]:
        stored = self.storage.put("inbox", key, body)
        about = {"key": quote_plus(key), "size": len(body), "eTag": stored.etag, "sequencer": "0A"}
        return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "inbox"}, "object": about}}

    def run(self, during: Callable[[QueueWorker], Awaitable[None]] | None = None) -> None:
        """One pass over the queue; or, with `during`, until that stops the worker."""

        async def running() -> None:
            runtime = Runtime(self.settings, {DEFAULT: self.engine}, self.storage)
            worker = QueueWorker(self.settings, runtime, self.storage, self.queue, pauses_s=(0.0,))
            try:
                if during is None:
                    await worker.run(once=True)
                else:
                    await asyncio.gather(worker.run(), during(worker))
            finally:
                runtime.close()

        bounded(running())

    @property
    def results(self) -> set[str]:
        return {key for bucket, key in self.storage.objects if bucket == "results"}


def bounded(work: Coroutine[Any, Any, None]) -> None:
    """What hangs fails."""
    asyncio.run(asyncio.wait_for(work, 60))


@pytest.fixture
def world() -> World:
    return World()


def test_a_photo_is_cut_out_and_its_message_deleted(world: World) -> None:
    world.drop("inbox/default/ä b+c%2F.jpg")
    world.run()
    assert world.results == {"results/default/ä b+c%2F.jpg.png"}
    assert world.queue.messages == {}


def test_the_folder_of_a_photo_is_its_preset(world: World) -> None:
    world.drop("inbox/webp/a.jpg", "inbox/other/a.jpg")
    world.run()
    assert world.results == {"results/webp/a.jpg.webp", "results/other/a.jpg.png"}


def test_a_notification_may_come_through_sns(world: World) -> None:
    world.drop("inbox/a.jpg")
    [message] = world.queue.messages.values()
    world.queue.messages.clear()
    world.queue.send(json.dumps({"Type": "Notification", "MessageId": "1", "Message": message.body}))
    world.run()
    assert (world.results, world.queue.messages) == ({"results/a.jpg.png"}, {})


def test_a_message_of_one_picture_has_its_own_options(world: World) -> None:
    world.storage.put("photos", "a.jpg", JPEG)
    world.queue.send(json.dumps({"bucket": "photos", "key": "a.jpg", "output": {"format": "webp"}}))
    world.run()
    assert (world.results, world.queue.messages) == ({"results/a.jpg.webp"}, {})


def test_a_picture_that_was_replaced_is_worked_anew_although_its_message_names_no_version(world: World) -> None:
    for body in (JPEG, JPEG, JPEG + b" "):
        world.storage.put("photos", "a.jpg", body)
        world.queue.send(json.dumps({"bucket": "photos", "key": "a.jpg"}))
        world.run()
    assert (world.storage.reads, world.storage.writes) == (2, 2)


@pytest.mark.parametrize(
    ("version_id", "reads"), [("v1", 1), ("v0", 0)], ids=["the version that is there", "an older one"]
)
def test_a_message_may_name_the_version_that_it_means(world: World, version_id: str, reads: int) -> None:
    world.storage.put("photos", "a.jpg", JPEG, version_id="v1")
    world.queue.send(json.dumps({"bucket": "photos", "key": "a.jpg", "version_id": version_id}))
    world.run()
    assert (world.storage.reads, world.queue.messages) == (reads, {})


def test_the_message_of_a_bad_picture_stays_and_the_log_says_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.drop("inbox/text.jpg", body=b"no image")
    world.drop("inbox/good.jpg")
    world.run()
    assert list(world.queue.messages) == ["1"]
    assert world.results == {"results/good.jpg.png"}
    assert "s3://inbox/inbox/text.jpg" in caplog.text
    assert "unsupported_format" in caplog.text


def test_the_test_of_a_notification_is_deleted(world: World) -> None:
    world.queue.send((EVENTS / "s3_test_event.json").read_text())
    world.run()
    assert (world.queue.messages, world.storage.reads) == ({}, 0)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[1]",
        "[" * 100_000,
        '{"bucket": "photos"}',
        '{"Records": [{}]}',
        '{"Records": 1}',
        '{"Type": "Notification", "Message": "text"}',
        '{"bucket": "photos", "key": "a.jpg", "colour": "red"}',
        '{"bucket": "photos", "key": "a.jpg", "engine": "none"}',
        '{"bucket": "photos", "key": "a.jpg", "output": {"format": "bmp"}}',
    ],
    ids=lambda body: body[:60],
)
def test_a_message_that_is_not_understood_stays(world: World, body: str, caplog: pytest.LogCaptureFixture) -> None:
    world.queue.send(body)
    world.run()
    assert list(world.queue.messages) == ["1"]
    assert "message 1 stays" in caplog.text
    assert "Traceback" not in caplog.text


def test_of_two_photos_the_good_one_is_not_worked_again_when_the_message_returns_for_the_bad_one(world: World) -> None:
    world.queue.send(
        json.dumps({"Records": [world.record("inbox/good.jpg"), world.record("inbox/bad.jpg", b"no image")]})
    )
    for deliveries in (1, 2):
        world.run()
        assert list(world.queue.messages) == ["1"]
        assert (world.results, world.storage.writes) == ({"results/good.jpg.png"}, 1)
        assert world.storage.reads == 1 + deliveries  # the good one once, the bad one each time
        world.queue.show()


def test_a_dry_run_writes_results_and_lets_messages_return(world: World) -> None:
    world.settings = replace(SETTINGS, delete_messages=False)
    world.drop("inbox/a.jpg")
    world.run()
    assert (list(world.queue.messages), world.results) == (["1"], {"results/a.jpg.png"})


def test_one_pass_ends_although_messages_return_before_its_end(world: World) -> None:
    class Forgetful(FakeQueue):
        def receive(self, count: int, *, wait_s: int, hidden_s: int) -> list[Any]:
            self.show()
            return super().receive(count, wait_s=wait_s, hidden_s=hidden_s)

    world.queue = Forgetful()
    world.drop("inbox/bad.jpg", body=b"no image")
    world.run()
    assert world.storage.reads == 1


def test_a_photo_that_is_gone_or_was_replaced_leaves_nothing_to_do(world: World) -> None:
    world.drop("inbox/gone.jpg")
    world.drop("inbox/new.jpg")
    del world.storage.objects["inbox", "inbox/gone.jpg"]
    world.storage.put("inbox", "inbox/new.jpg", JPEG + b" ")
    world.queue.send(json.dumps({"bucket": "photos", "key": "never.jpg"}))
    world.run()
    assert (world.queue.messages, world.results) == ({}, set())


def test_no_cut_out_is_made_of_a_cut_out(world: World) -> None:
    world.storage.put("results", "results/a.jpg.png", JPEG)
    world.queue.send(json.dumps({"bucket": "results", "key": "results/a.jpg.png"}))
    world.run()
    assert (world.queue.messages, world.storage.writes) == ({}, 0)


def test_while_s3_is_broken_messages_stay(world: World) -> None:
    world.drop("inbox/a.jpg")
    world.storage.broken = StorageUnavailable("S3 answered SlowDown.")
    world.run()
    world.storage.broken = None
    assert list(world.queue.messages) == ["1"]
    world.queue.show()
    world.run()
    assert world.queue.messages == {}


def test_no_more_is_received_than_can_be_held_and_it_is_hidden_for_twice_the_deadline(world: World) -> None:
    for number in range(20):
        world.drop(f"inbox/{number}.jpg")
    world.run()
    assert world.queue.messages == {}
    assert {(wait_s, hidden_s) for _, wait_s, hidden_s in world.queue.asked} == {(ONCE_POLL_S, 60)}
    places = in_flight(SETTINGS.workers)
    assert world.queue.asked[0][0] == places
    assert all(1 <= count <= places for count, _, _ in world.queue.asked)


def test_stopped_it_receives_no_more_and_ends_what_is_in_work(world: World) -> None:
    world.engine.hold, world.queue.hold = threading.Event(), threading.Event()
    world.drop("inbox/a.jpg")

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(world.engine.entered.acquire)
        await asyncio.to_thread(world.queue.entered.acquire)  # it asks for more
        worker.stop()
        world.drop("inbox/late.jpg")
        world.queue.hold.set()  # type: ignore[union-attr]
        world.engine.hold.set()  # type: ignore[union-attr]

    world.run(during)
    assert world.results == {"results/a.jpg.png"}
    assert list(world.queue.messages) == ["2"]


def test_stopped_it_does_not_wait_for_a_message(world: World) -> None:
    world.queue.hold = threading.Event()

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(world.queue.entered.acquire)
        worker.stop()

    try:
        world.run(during)
        assert world.queue.asked == [(in_flight(SETTINGS.workers), POLL_S, 60)]
    finally:
        world.queue.hold.set()  # the thread that still asks


def test_what_outlives_the_time_to_drain_comes_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.settings = replace(SETTINGS, drain_s=0)
    world.engine.hold = threading.Event()
    world.drop("inbox/a.jpg")

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(world.engine.entered.acquire)
        worker.stop()

    try:
        world.run(during)
    finally:
        world.engine.hold.set()
    assert list(world.queue.messages) == ["1"]
    assert "to come again: 1 messages" in caplog.text


def test_sigterm_stops_it(world: World) -> None:
    world.queue.hold = threading.Event()

    async def running() -> None:
        working = work(world.settings, {DEFAULT: world.engine}, world.storage, world.queue, once=False)
        stop = asyncio.to_thread(world.queue.entered.acquire)
        await asyncio.gather(working, terminate(stop))

    async def terminate(waiting: Awaitable[bool]) -> None:
        await waiting
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        bounded(running())
    finally:
        world.queue.hold.set()


def test_a_stuck_picture_ends_the_worker_and_its_message_stays(world: World) -> None:
    world.settings = replace(SETTINGS, deadline_s=0.2)
    world.engine.hold = threading.Event()
    world.drop("inbox/a.jpg")

    async def forever(worker: QueueWorker) -> None: ...

    try:
        with pytest.raises(DeadlineExceeded):
            world.run(forever)
    finally:
        world.engine.hold.set()
    assert list(world.queue.messages) == ["1"]


def test_a_queue_that_does_not_answer_is_asked_again(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.queue.faults = [QueueUnavailable("SQS answered RequestThrottled.")] * 3
    world.drop("inbox/a.jpg")
    world.run()
    assert (world.queue.messages, world.queue.faults) == ({}, [])
    assert caplog.text.count("RequestThrottled") == 3


def test_a_queue_that_may_not_be_used_ends_the_worker(world: World) -> None:
    world.queue.faults = [NotAllowed("SQS refuses the queue: AccessDenied.")]
    with pytest.raises(NotAllowed):
        world.run()
    assert world.queue.asked == []


@pytest.mark.parametrize("dead_letters", [True, False])
def test_a_queue_without_dead_letters_is_warned_of(
    world: World, dead_letters: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world.queue.dead_letters = dead_letters
    world.run()
    assert ("no redrive policy" in caplog.text) is not dead_letters
