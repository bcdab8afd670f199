"""The command `worker`: processes the images that messages in SQS name.

It is for containers that run without SageMaker: on ECS, on EC2, or on your own machine. A message is one of:

- an event notification of S3, direct or through SNS; each photo has the built-in preset of its folder;
- a JSON object for one image, of which only bucket and key are required:

    {"bucket": "…", "key": "…", "version_id": "…", "task": "…", "engine": "…", "prompt": {…}, "output": {…}}

A message is deleted when all of its images are done. Otherwise SQS redelivers it, until the queue's redrive policy
moves it to the dead-letter queue. So no image is lost, and the worker keeps no state.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

from maskdrop.errors import (
    DeadlineExceeded,
    InvalidOptions,
    MaskdropError,
    QueueUnavailable,
    SourceMissing,
    SourceReplaced,
)
from maskdrop.job import RESULTS_PREFIX, Job, Source, dropped, queued
from maskdrop.options import Options
from maskdrop.wire import Item, bundle_of, sources_of
from sagemaker_model.detectors.base import Detector
from sagemaker_model.engines.base import Engine
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.serving.queue import POLL_S, RECEIVE_MAX, VISIBILITY_TIMEOUT_MAX_S, Message, Queue
from sagemaker_model.serving.runtime import Runtime, in_flight_max
from sagemaker_model.serving.storage import Storage
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before a call to SQS is retried, after its first, second … failure in a row."""

ONCE_POLL_S = 1
"""Seconds that SQS waits for a message if `once`. Without a wait, SQS queries only some of its servers."""

FINAL_ERRORS = (SourceMissing.code, SourceReplaced.code)
"""Errors that are not retried: the photo was deleted, or a newer one has its own message."""


def parse_message(body: str, results: str, storage: Storage) -> list[Item]:
    """Returns the items of a message.

    S3's test event has none. Objects under the results prefix of the results bucket are skipped: a notification of that
    bucket would process its own results without end. Raises InvalidOptions, InvalidPrompt, UnknownEngine,
    StorageUnavailable and NotAllowed.
    """
    try:
        jobs = _parse_jobs(json.loads(body), storage)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidOptions(
            "The message is neither an S3 event notification nor an object of bucket, key and options."
        ) from error
    items = bundle_of("", jobs, results).items
    return [one for one in items if one.source.bucket != results or not one.source.key.startswith(RESULTS_PREFIX)]


def _parse_jobs(data: Any, storage: Storage) -> list[Job]:
    now = datetime.now(UTC)
    match data:
        case {"Type": "Notification", "Message": str(message)}:  # SNS
            return _parse_jobs(json.loads(message), storage)
        case {"Records": _} | {"Event": "s3:TestEvent"}:
            return [dropped(source, now) for source in sources_of(data)]
        case {"bucket": str(bucket), "key": str(key), **options}:
            version_id = str(options.pop("version_id", "") or _current_version(bucket, key, storage))
            return [queued(Source(bucket, key, version_id), "", Options.from_json(options), now)]
    raise ValueError


def _current_version(bucket: str, key: str, storage: Storage) -> str:
    """Returns the version id or ETag of the current object, "" if there is no object.

    It is part of the job's id, so that a replaced photo is a new job.
    """
    stored = storage.head(bucket, key)
    return (stored.version_id or stored.etag) if stored else ""


class QueueWorker:
    """Receives messages and processes their images. Must be created inside the running event loop.

    It processes as many messages at once as the runtime processes images, so that some images are read and written
    while others are computed. Two workers that spend 0.1 s in S3 on an image of 512x512 process 20 images a second;
    with two messages at once, 9.
    """

    def __init__(
        self,
        settings: ServerSettings,
        runtime: Runtime,
        storage: Storage,
        queue: Queue,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._settings = settings
        self._runtime = runtime
        self._storage = storage
        self._queue = queue
        self._pauses_s = pauses_s
        # Twice the deadline, because an image may wait for a thread before its deadline starts. If the message is
        # redelivered meanwhile, the image is processed twice and written once.
        self._visibility_timeout_s = min(math.ceil(2 * settings.deadline_s), VISIBILITY_TIMEOUT_MAX_S)
        self._in_progress: set[asyncio.Task[None]] = set()
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Stops receiving messages. A message that SQS returns at this moment is redelivered later."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def run(self, *, once: bool = False) -> None:
        """Processes messages until `stop`; if `once`, until the queue returns no new message.

        After `stop` or an error, messages in progress have drain_s seconds to end. Raises NotAllowed, and
        DeadlineExceeded if a thread is stuck: the process must be restarted to have all threads again.
        """
        try:
            if await self._call_queue(self._queue.has_dead_letters) is False:
                log.warning("the queue has no redrive policy: messages that fail are redelivered until they expire")
            await self._receive(once)
        finally:
            if self._in_progress:
                _, unfinished = await asyncio.wait(self._in_progress, timeout=self._settings.drain_s)
                if unfinished:
                    log.warning("not finished in time, redelivered later: %d messages", len(unfinished))

    async def _receive(self, once: bool) -> None:
        messages_max = in_flight_max(self._settings.workers)
        seen: set[str] = set()
        while not self._stopped.done():
            await self._wait_until_at_most(messages_max - 1)
            if self._runtime.stuck:
                raise DeadlineExceeded("A thread is stuck with an image: the worker ends and must be restarted.")
            count = min(messages_max - len(self._in_progress), RECEIVE_MAX)
            wait_s = ONCE_POLL_S if once else POLL_S
            receive = partial(
                self._queue.receive, count, wait_s=wait_s, visibility_timeout_s=self._visibility_timeout_s
            )
            messages = await self._call_queue(receive) or []
            if once:
                messages = [message for message in messages if message.id not in seen]
                seen |= {message.id for message in messages}
                if not messages:
                    await self._wait_until_at_most(0)
                    break
            for message in messages:
                task = asyncio.create_task(self._process_message(message))
                self._in_progress.add(task)
                task.add_done_callback(self._in_progress.discard)

    async def _wait_until_at_most(self, count: int) -> None:
        """Waits until at most `count` messages are in progress, or the worker is stopped."""
        while len(self._in_progress) > count and not self._stopped.done():
            await asyncio.wait({*self._in_progress, self._stopped}, return_when=asyncio.FIRST_COMPLETED)

    async def _call_queue(self, call: Callable[[], T]) -> T | None:
        """Calls SQS, with retries, until it responds; None if the worker is stopped first. Raises NotAllowed."""
        for pause_s in chain(self._pauses_s, repeat(self._pauses_s[-1])):
            response = asyncio.create_task(self._runtime.run_io(call))
            await asyncio.wait((response, self._stopped), return_when=asyncio.FIRST_COMPLETED)
            if not response.done():
                break
            try:
                return response.result()
            except QueueUnavailable as error:
                log.warning("%s The call is retried in %g s.", error, pause_s)
            await asyncio.wait({self._stopped}, timeout=pause_s)
            if self._stopped.done():
                break
        return None

    async def _process_message(self, message: Message) -> None:
        try:
            items = await self._runtime.run_io(
                partial(parse_message, message.body, self._settings.results_bucket, self._storage)
            )
            done = await asyncio.gather(*(self._process_item(item) for item in items))
            if all(done) and self._settings.delete_messages:
                await self._runtime.run_io(partial(self._queue.delete, message))
        except MaskdropError as error:
            log.error("message %s is not deleted: %s (%s)", message.id, error, error.code)
        except Exception:  # the boundary of a message: the others go on
            log.exception("message %s is not deleted", message.id)

    async def _process_item(self, item: Item) -> bool:
        """Returns whether the item needs no retry."""
        outcome = await self._runtime.process(item)
        source = f"s3://{item.source.bucket}/{item.source.key}"
        if outcome.error is None:
            log.info("job %s: the result of %s is s3://%s/%s", item.id, source, item.result.bucket, item.result.key)
            return True
        log.warning("job %s: %s: %s (%s)", item.id, source, outcome.error.message, outcome.error.code)
        return outcome.error.code in FINAL_ERRORS


async def run_worker(
    settings: ServerSettings,
    engines: Mapping[str, Engine],
    storage: Storage,
    queue: Queue,
    detectors: Mapping[str, Detector] | None = None,
    refiner: Refiner | None = None,
    *,
    once: bool,
) -> None:
    """Processes messages until SIGTERM or SIGINT, or, if `once`, until the queue is empty.

    Raises what `QueueWorker.run` raises.
    """
    runtime = Runtime(settings, engines, storage, detectors, refiner)
    worker = QueueWorker(settings, runtime, storage, queue)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    try:
        await runtime.warm_up()
        await worker.run(once=once)
    finally:
        runtime.close()
