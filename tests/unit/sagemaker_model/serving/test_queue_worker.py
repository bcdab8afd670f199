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
from maskdrop.errors import DeadlineExceeded, NotAllowed, QueueUnavailable, StorageUnavailable, TableUnavailable
from sagemaker_model.serving.queue import POLL_S
from sagemaker_model.serving.queue_worker import ONCE_POLL_S, Parser, QueueWorker, run_worker
from sagemaker_model.serving.runtime import Runtime, in_flight_max
from sagemaker_model.serving.worker_settings import WorkerSettings
from sagemaker_model.settings import ServerSettings
from tests.unit.sagemaker_model.engines.fake_engine import Half
from tests.unit.sagemaker_model.serving.fake_queue import FakeQueue
from tests.unit.sagemaker_model.serving.fake_rows import FakeRows
from tests.unit.sagemaker_model.serving.fake_storage import FakeStorage

DEFAULT = DEFAULT_ENGINE["cutout"]
SETTINGS = ServerSettings(device="cpu", workers=2, deadline_s=30)
WORKER = WorkerSettings(aws_source_bucket_name="photos", aws_target_bucket_name="results", break_loop=True)
JPEG = cv2.imencode(".jpg", np.full((30, 40, 3), 90, np.uint8))[1].tobytes()
EVENTS = Path(__file__).parents[3] / "events"


@dataclass
class Environment:
    """The queue, storage, table and engine of a worker, all in memory."""

    settings: ServerSettings = SETTINGS
    worker: WorkerSettings = WORKER
    rows: FakeRows = field(default_factory=FakeRows)
    queue: FakeQueue = field(default_factory=FakeQueue)
    storage: FakeStorage = field(default_factory=FakeStorage)
    engine: Half = field(default_factory=Half)

    def drop(self, *keys: str, body: bytes = JPEG) -> None:
        """Stores photos, and sends one event notification of S3 for them."""
        self.queue.send(json.dumps({"Records": [self.record(key, body) for key in keys]}))

    def record(self, key: str, body: bytes = JPEG) -> dict[str, Any]:
        stored = self.storage.put("inbox", key, body)
        s3_object = {"key": quote_plus(key), "size": len(body), "eTag": stored.etag, "sequencer": "0A"}
        return {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "inbox"}, "object": s3_object}}

    def run(self, during: Callable[[QueueWorker], Awaitable[None]] | None = None) -> None:
        """Runs the worker once over the queue; with `during`, until `during` stops it."""

        async def running() -> None:
            runtime = Runtime(self.settings, {DEFAULT: self.engine}, self.storage)
            chosen = replace(self.worker, break_loop=during is None)
            parser = Parser("photos", "results", self.storage)
            worker = QueueWorker(self.settings, chosen, runtime, self.queue, self.rows, parser, pauses_s=(0.0,))
            try:
                await asyncio.gather(worker.run(), *([during(worker)] if during else []))
            finally:
                runtime.close()

        run_with_timeout(running())

    @property
    def results(self) -> set[str]:
        return {key for bucket, key in self.storage.objects if bucket == "results"}


def run_with_timeout(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine with a timeout of 60 s."""
    asyncio.run(asyncio.wait_for(coroutine, 60))


@pytest.fixture
def environment() -> Environment:
    return Environment()


def test_a_photo_is_processed_and_its_message_deleted(environment: Environment) -> None:
    environment.drop("inbox/default/ä b+c%2F.jpg")
    environment.run()
    assert environment.results == {"results/default/ä b+c%2F.jpg.png"}
    assert environment.queue.messages == {}


def test_the_folder_of_a_photo_is_its_preset(environment: Environment) -> None:
    environment.drop("inbox/webp/a.jpg", "inbox/other/a.jpg")
    environment.run()
    assert environment.results == {"results/webp/a.jpg.webp", "results/other/a.jpg.png"}


def test_a_notification_may_arrive_through_sns(environment: Environment) -> None:
    environment.drop("inbox/a.jpg")
    [message] = environment.queue.messages.values()
    environment.queue.messages.clear()
    environment.queue.send(json.dumps({"Type": "Notification", "MessageId": "1", "Message": message.body}))
    environment.run()
    assert (environment.results, environment.queue.messages) == ({"results/a.jpg.png"}, {})


def test_a_message_for_one_image_may_have_options(environment: Environment) -> None:
    environment.storage.put("photos", "a.jpg", JPEG)
    environment.queue.send(json.dumps({"bucket": "photos", "key": "a.jpg", "output": {"format": "webp"}}))
    environment.run()
    assert (environment.results, environment.queue.messages) == ({"results/a.jpg.webp"}, {})


def test_a_replaced_image_is_processed_again_if_its_message_names_no_version(environment: Environment) -> None:
    for body in (JPEG, JPEG, JPEG + b" "):
        environment.storage.put("photos", "a.jpg", body)
        environment.queue.send(json.dumps({"bucket": "photos", "key": "a.jpg"}))
        environment.run()
    assert (environment.storage.reads, environment.storage.writes) == (2, 2)


@pytest.mark.parametrize(("version_id", "reads"), [("v1", 1), ("v0", 0)], ids=["the current version", "an older one"])
def test_a_message_may_name_a_version(environment: Environment, version_id: str, reads: int) -> None:
    environment.storage.put("photos", "a.jpg", JPEG, version_id="v1")
    environment.queue.send(json.dumps({"bucket": "photos", "key": "a.jpg", "version_id": version_id}))
    environment.run()
    assert (environment.storage.reads, environment.queue.messages) == (reads, {})


def test_the_message_of_a_bad_image_is_not_deleted_and_the_log_has_the_reason(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    environment.drop("inbox/text.jpg", body=b"no image")
    environment.drop("inbox/good.jpg")
    environment.run()
    assert list(environment.queue.messages) == ["1"]
    assert environment.results == {"results/good.jpg.png"}
    assert "s3://inbox/inbox/text.jpg" in caplog.text
    assert "unsupported_format" in caplog.text


def test_the_test_event_of_s3_is_deleted(environment: Environment) -> None:
    environment.queue.send((EVENTS / "s3_test_event.json").read_text())
    environment.run()
    assert (environment.queue.messages, environment.storage.reads) == ({}, 0)


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
def test_a_malformed_message_is_not_deleted(
    environment: Environment, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment.queue.send(body)
    environment.run()
    assert list(environment.queue.messages) == ["1"]
    assert "message 1 is not deleted" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_redelivered_message_does_not_process_its_finished_photos_again(environment: Environment) -> None:
    environment.queue.send(
        json.dumps(
            {"Records": [environment.record("inbox/good.jpg"), environment.record("inbox/bad.jpg", b"no image")]}
        )
    )
    for deliveries in (1, 2):
        environment.run()
        assert list(environment.queue.messages) == ["1"]
        assert (environment.results, environment.storage.writes) == ({"results/good.jpg.png"}, 1)
        assert environment.storage.reads == 1 + deliveries  # the good photo once, the bad one each time
        environment.queue.show()


def test_a_dry_run_writes_results_and_deletes_no_messages(environment: Environment) -> None:
    environment.worker = replace(WORKER, delete_sqs_message=False)
    environment.drop("inbox/a.jpg")
    environment.run()
    assert (list(environment.queue.messages), environment.results) == (["1"], {"results/a.jpg.png"})


def test_once_ends_even_if_messages_are_redelivered_meanwhile(environment: Environment) -> None:
    class RedeliveringQueue(FakeQueue):
        def receive(self, count: int, *, wait_s: int, visibility_timeout_s: int) -> list[Any]:
            self.show()
            return super().receive(count, wait_s=wait_s, visibility_timeout_s=visibility_timeout_s)

    environment.queue = RedeliveringQueue()
    environment.drop("inbox/bad.jpg", body=b"no image")
    environment.run()
    assert environment.storage.reads == 1


def test_the_message_of_a_deleted_or_replaced_photo_is_deleted(environment: Environment) -> None:
    environment.drop("inbox/gone.jpg")
    environment.drop("inbox/new.jpg")
    del environment.storage.objects["inbox", "inbox/gone.jpg"]
    environment.storage.put("inbox", "inbox/new.jpg", JPEG + b" ")
    environment.queue.send(json.dumps({"bucket": "photos", "key": "never.jpg"}))
    environment.run()
    assert (environment.queue.messages, environment.results) == ({}, set())


def test_results_are_not_processed_again(environment: Environment) -> None:
    environment.storage.put("results", "results/a.jpg.png", JPEG)
    environment.queue.send(json.dumps({"bucket": "results", "key": "results/a.jpg.png"}))
    environment.run()
    assert (environment.queue.messages, environment.storage.writes) == ({}, 0)


def test_messages_are_not_deleted_while_s3_is_unavailable(environment: Environment) -> None:
    environment.drop("inbox/a.jpg")
    environment.storage.broken = StorageUnavailable("S3 returned the error SlowDown.")
    environment.run()
    environment.storage.broken = None
    assert list(environment.queue.messages) == ["1"]
    environment.queue.show()
    environment.run()
    assert environment.queue.messages == {}


def test_receives_are_limited_to_the_free_capacity_and_hidden_for_the_visibility_timeout(
    environment: Environment,
) -> None:
    for number in range(20):
        environment.drop(f"inbox/{number}.jpg")
    environment.run()
    assert environment.queue.messages == {}
    assert {(wait_s, visibility_timeout_s) for _, wait_s, visibility_timeout_s in environment.queue.receives} == {
        (ONCE_POLL_S, 60)
    }
    messages_max = in_flight_max(SETTINGS.workers)
    assert environment.queue.receives[0][0] == messages_max
    assert all(1 <= count <= messages_max for count, _, _ in environment.queue.receives)


def test_stop_ends_receiving_and_finishes_the_messages_in_progress(environment: Environment) -> None:
    environment.engine.hold, environment.queue.hold = threading.Event(), threading.Event()
    environment.drop("inbox/a.jpg")

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(environment.engine.entered.acquire)
        await asyncio.to_thread(environment.queue.entered.acquire)  # the worker receives the next messages
        worker.stop()
        environment.drop("inbox/late.jpg")
        environment.queue.hold.set()  # type: ignore[union-attr]
        environment.engine.hold.set()  # type: ignore[union-attr]

    environment.run(during)
    assert environment.results == {"results/a.jpg.png"}
    assert list(environment.queue.messages) == ["2"]


def test_stop_does_not_wait_for_a_pending_receive(environment: Environment) -> None:
    environment.queue.hold = threading.Event()

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(environment.queue.entered.acquire)
        worker.stop()

    try:
        environment.run(during)
        assert environment.queue.receives == [(in_flight_max(SETTINGS.workers), POLL_S, 60)]
    finally:
        environment.queue.hold.set()  # releases the thread that still receives


def test_a_message_that_exceeds_the_drain_time_is_not_deleted(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    environment.settings = replace(SETTINGS, drain_s=0)
    environment.engine.hold = threading.Event()
    environment.drop("inbox/a.jpg")

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(environment.engine.entered.acquire)
        worker.stop()

    try:
        environment.run(during)
    finally:
        environment.engine.hold.set()
    assert list(environment.queue.messages) == ["1"]
    assert "redelivered: 1 messages" in caplog.text


def test_sigterm_stops_the_worker(environment: Environment) -> None:
    environment.queue.hold = threading.Event()

    async def running() -> None:
        chosen = replace(WORKER, break_loop=False)
        working = run_worker(
            SETTINGS, chosen, {DEFAULT: environment.engine}, environment.storage, environment.queue, environment.rows
        )
        stop = asyncio.to_thread(environment.queue.entered.acquire)
        await asyncio.gather(working, terminate(stop))

    async def terminate(waiting: Awaitable[bool]) -> None:
        await waiting
        os.kill(os.getpid(), signal.SIGTERM)

    try:
        run_with_timeout(running())
    finally:
        environment.queue.hold.set()


def test_a_stuck_image_ends_the_worker_and_its_message_is_not_deleted(environment: Environment) -> None:
    environment.settings = replace(SETTINGS, deadline_s=0.2)
    environment.engine.hold = threading.Event()
    environment.drop("inbox/a.jpg")

    async def run_until_error(worker: QueueWorker) -> None: ...

    try:
        with pytest.raises(DeadlineExceeded):
            environment.run(run_until_error)
    finally:
        environment.engine.hold.set()
    assert list(environment.queue.messages) == ["1"]


def test_calls_to_an_unavailable_queue_are_retried(environment: Environment, caplog: pytest.LogCaptureFixture) -> None:
    environment.queue.errors = [QueueUnavailable("SQS returned the error RequestThrottled.")] * 3
    environment.drop("inbox/a.jpg")
    environment.run()
    assert (environment.queue.messages, environment.queue.errors) == ({}, [])
    assert caplog.text.count("RequestThrottled") == 3


def test_a_queue_without_permission_ends_the_worker(environment: Environment) -> None:
    environment.queue.errors = [NotAllowed("SQS refuses the queue: AccessDenied.")]
    with pytest.raises(NotAllowed):
        environment.run()
    assert environment.queue.receives == []


@pytest.mark.parametrize("dead_letters", [True, False])
def test_a_queue_without_a_redrive_policy_logs_a_warning(
    environment: Environment, dead_letters: bool, caplog: pytest.LogCaptureFixture
) -> None:
    environment.queue.dead_letters = dead_letters
    environment.run()
    assert ("no redrive policy" in caplog.text) is not dead_letters


def test_every_image_has_a_row_and_a_redelivery_changes_neither_their_number_nor_a_finished_one(
    environment: Environment,
) -> None:
    environment.worker = replace(WORKER, delete_sqs_message=False)
    environment.drop("inbox/a.jpg", "inbox/webp/b.jpg")
    environment.drop("inbox/bad.jpg", body=b"no image")
    for _ in range(2):
        environment.run()
        environment.queue.show()
    rows = {row["source"]["key"]: row for row in environment.rows.items.values()}
    assert {key: row["state"] for key, row in rows.items()} == {
        "inbox/a.jpg": "done",
        "inbox/webp/b.jpg": "done",
        "inbox/bad.jpg": "failed",
    }
    assert rows["inbox/webp/b.jpg"]["result"]["key"] == "results/webp/b.jpg.webp"
    assert rows["inbox/bad.jpg"]["error"]["code"] == "unsupported_format"
    assert all(row["finished_at"] for row in rows.values())


def test_an_image_whose_row_cannot_be_written_keeps_its_message(environment: Environment) -> None:
    environment.drop("inbox/a.jpg")
    environment.rows.broken = TableUnavailable("DynamoDB returned the error ThrottlingException.")
    environment.run()
    assert list(environment.queue.messages) == ["1"]
    environment.rows.broken = None
    environment.queue.show()
    environment.run()
    assert (environment.queue.messages, environment.storage.writes) == ({}, 1)


def test_a_retryable_error_leaves_the_row_queued(environment: Environment) -> None:
    environment.drop("inbox/a.jpg")
    environment.storage.broken = StorageUnavailable("S3 returned the error SlowDown.")
    environment.run()
    [row] = environment.rows.items.values()
    assert (row["state"], row["error"]["code"], row["finished_at"]) == ("queued", "storage_unavailable", None)


@pytest.mark.parametrize("body", ["no JSON", '{"bucket": "photos"}', '{"key": "a.jpg", "engine": "none"}'])
def test_without_a_redrive_policy_an_invalid_message_ends_with_a_failed_row(
    environment: Environment, body: str
) -> None:
    environment.queue.dead_letters = False
    environment.queue.send(body)
    environment.drop("inbox/bad.jpg", body=b"no image")
    environment.run()
    assert environment.queue.messages == {}
    assert [row["state"] for row in environment.rows.items.values()] == ["failed", "failed"]


def test_folder_markers_and_test_events_end_without_a_row_and_an_empty_file_fails(environment: Environment) -> None:
    environment.drop("inbox/shop/", body=b"")
    environment.queue.send((EVENTS / "s3_test_event.json").read_text())
    environment.queue.send(json.dumps({"key": "shop/"}))
    environment.run()
    assert (environment.queue.messages, environment.rows.items) == ({}, {})
    environment.drop("inbox/empty.jpg", body=b"")
    environment.run()
    assert [row["error"]["code"] for row in environment.rows.items.values()] == ["empty_file"]


def test_a_message_without_a_bucket_names_a_key_of_the_source_bucket(environment: Environment) -> None:
    environment.storage.put("photos", "a.jpg", JPEG)
    environment.queue.send(json.dumps({"key": "a.jpg"}))
    environment.run()
    assert environment.results == {"results/a.jpg.png"}


def test_the_engine_of_the_model_path_replaces_the_default_engine_only(environment: Environment) -> None:
    parser = Parser("photos", "results", environment.storage, engine="modnet")
    environment.drop("inbox/a.jpg", "inbox/object/b.jpg")
    [event] = [message.body for message in environment.queue.messages.values()]
    assert [job.options.engine for job in parser.parse(event)] == ["modnet", "u2netp"]
    boxes = {"key": "a.jpg", "prompt": {"box": [1, 1, 9, 9]}}
    bodies = [{"key": "a.jpg"}, {"key": "a.jpg", "engine": DEFAULT}, {"key": "a.jpg", "task": "detect"}, boxes]
    engines = [parser.parse(json.dumps(body))[0].options.engine for body in bodies]
    assert engines[:2] == ["modnet", DEFAULT]
    assert "modnet" not in engines[2:]
    ids = {parser.parse(json.dumps(body))[0].id for body in bodies[:2]}
    assert len(ids) == 2


def test_the_visibility_timeout_is_extended_while_an_image_is_processed(environment: Environment) -> None:
    environment.worker = replace(WORKER, visibility_s=1)
    environment.engine.hold = threading.Event()
    environment.drop("inbox/a.jpg")

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(environment.queue.extended.wait)
        environment.engine.hold.set()  # type: ignore[union-attr]
        worker.stop()

    environment.run(during)
    assert environment.queue.timeouts[0] == ("1", 1)
    assert environment.queue.messages == {}


def test_stop_finishes_the_images_in_progress_and_returns_the_messages_of_the_others(environment: Environment) -> None:
    """One message has more images than the worker processes at once."""
    environment.engine.hold = threading.Event()
    count = in_flight_max(SETTINGS.workers) + 3
    environment.drop(*(f"inbox/{number}.jpg" for number in range(count)))

    async def during(worker: QueueWorker) -> None:
        await asyncio.to_thread(environment.engine.entered.acquire)
        worker.stop()
        environment.engine.hold.set()  # type: ignore[union-attr]

    environment.run(during)
    assert environment.queue.timeouts == [("1", 0)]
    assert environment.queue.hidden == set()
    assert 0 < len(environment.results) == len(environment.rows.items) < count
    environment.run()
    assert (len(environment.results), len(environment.rows.items)) == (count, count)
    assert environment.storage.writes == count
