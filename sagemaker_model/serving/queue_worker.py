"""`worker`: works the photos that a queue in SQS tells of, where the container runs without SageMaker: on ECS, on EC2,
on a machine of one's own.

A message is a notification of S3, direct or through SNS, whose photos have the built-in preset of their folder; or it
is one image, of which only the place is needed:

    {"bucket": "…", "key": "…", "version_id": "…", "task": "…", "engine": "…", "prompt": {…}, "output": {…}}

It is deleted when nothing of it is left to do. Otherwise it stays, and SQS hands it out again, until the redrive policy
of the queue moves it to the dead letters. So nothing is lost, and no state is kept.
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
from sagemaker_model.engines.base import Engine
from sagemaker_model.serving.queue import HIDDEN_MAX_S, POLL_S, RECEIVE_MAX, Message, Queue
from sagemaker_model.serving.runtime import Runtime, in_flight
from sagemaker_model.serving.storage import Storage
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before SQS is asked anew, after its first, second … failure in a row."""

ONCE_POLL_S = 1
"""How long it waits when the queue is worked once: without any wait it looks at only some of its servers."""

OVER = (SourceMissing.code, SourceReplaced.code)
"""Errors after which nothing is left to do: the photo was deleted, or a newer one has a message of its own."""


def items_of(body: str, results: str, storage: Storage) -> list[Item]:
    """What a message asks for; nothing for S3's test of a notification, and for our own results, as a notification of
    the results bucket would have cut-outs made of cut-outs for ever. Raises InvalidOptions, InvalidPrompt,
    UnknownEngine, StorageUnavailable and NotAllowed."""
    try:
        jobs = _jobs_of(json.loads(body), storage)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidOptions("The message is neither an S3 notification nor an image with its options.") from error
    items = bundle_of("", jobs, results).items
    return [one for one in items if one.source.bucket != results or not one.source.key.startswith(RESULTS_PREFIX)]


def _jobs_of(data: Any, storage: Storage) -> list[Job]:
    now = datetime.now(UTC)
    match data:
        case {"Type": "Notification", "Message": str(message)}:  # SNS
            return _jobs_of(json.loads(message), storage)
        case {"Records": _} | {"Event": "s3:TestEvent"}:
            return [dropped(source, now) for source in sources_of(data)]
        case {"bucket": str(bucket), "key": str(key), **more}:
            version_id = str(more.pop("version_id", "") or _version(bucket, key, storage))
            return [queued(Source(bucket, key, version_id), "", Options.from_json(more), now)]
    raise ValueError


def _version(bucket: str, key: str, storage: Storage) -> str:
    """Of the current object, so that a photo that was replaced is another job; "" when there is none."""
    stored = storage.look(bucket, key)
    return (stored.version_id or stored.etag) if stored else ""


class QueueWorker:
    """Holds as many messages at once as the runtime holds images: while some are worked, others are read and written.
    Two workers that spend 0.1 s in S3 on an image of 512 x 512 do 20 a second; with two messages at once they did 9.
    Made inside the running event loop."""

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
        # Twice the deadline: an image may wait for a thread before its own time runs. Should its message come back
        # meanwhile, it is worked twice and written once.
        self._hidden_s = min(math.ceil(2 * settings.deadline_s), HIDDEN_MAX_S)
        self._in_work: set[asyncio.Task[None]] = set()
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """No more messages are received. One that SQS hands out at this moment comes again later."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def run(self, *, once: bool = False) -> None:
        """Until `stop`; or, `once`, until the queue gives nothing that it has not given yet. After `stop` and after an
        error, what is in work has drain_s to end. Raises NotAllowed, and DeadlineExceeded when a thread is stuck: a new
        process has all of its threads."""
        try:
            if await self._ask(self._queue.has_dead_letters) is False:
                log.warning("the queue has no redrive policy: what cannot be worked comes back until it expires")
            await self._receive(once)
        finally:
            if self._in_work:
                _, left = await asyncio.wait(self._in_work, timeout=self._settings.drain_s)
                if left:
                    log.warning("not ended in time, to come again: %d messages", len(left))

    async def _receive(self, once: bool) -> None:
        places = in_flight(self._settings.workers)
        known: set[str] = set()
        while not self._stopped.done():
            await self._until(places - 1)
            if self._runtime.stuck:
                raise DeadlineExceeded("A thread is stuck with an image: the worker ends, to be started anew.")
            count = min(places - len(self._in_work), RECEIVE_MAX)
            wait_s = ONCE_POLL_S if once else POLL_S
            given = await self._ask(partial(self._queue.receive, count, wait_s=wait_s, hidden_s=self._hidden_s)) or []
            if once:
                given = [message for message in given if message.id not in known]
                known |= {message.id for message in given}
                if not given:
                    await self._until(0)
                    break
            for message in given:
                task = asyncio.create_task(self._handle(message))
                self._in_work.add(task)
                task.add_done_callback(self._in_work.discard)

    async def _until(self, most: int) -> None:
        """At most so many messages are in work, or the worker is stopped."""
        while len(self._in_work) > most and not self._stopped.done():
            await asyncio.wait({*self._in_work, self._stopped}, return_when=asyncio.FIRST_COMPLETED)

    async def _ask(self, call: Callable[[], T]) -> T | None:
        """The queue's answer, however often it must be asked; None when the worker is stopped first. Raises
        NotAllowed."""
        for pause_s in chain(self._pauses_s, repeat(self._pauses_s[-1])):
            asked = asyncio.create_task(self._runtime.in_io(call))
            await asyncio.wait((asked, self._stopped), return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                break
            try:
                return asked.result()
            except QueueUnavailable as error:
                log.warning("%s It is asked again in %g s.", error, pause_s)
            await asyncio.wait({self._stopped}, timeout=pause_s)
            if self._stopped.done():
                break
        return None

    async def _handle(self, message: Message) -> None:
        try:
            items = await self._runtime.in_io(
                partial(items_of, message.body, self._settings.results_bucket, self._storage)
            )
            over = await asyncio.gather(*(self._work(item) for item in items))
            if all(over) and self._settings.delete_messages:
                await self._runtime.in_io(partial(self._queue.delete, message))
        except MaskdropError as error:
            log.error("message %s stays: %s (%s)", message.id, error, error.code)
        except Exception:  # the rim of a message: it stays, and the others go on
            log.exception("message %s stays", message.id)

    async def _work(self, item: Item) -> bool:
        """Whether nothing is left to do."""
        outcome = await self._runtime.item(item)
        name = f"s3://{item.source.bucket}/{item.source.key}"
        if outcome.error is None:
            log.info("job %s: %s is in s3://%s/%s", item.id, name, item.result.bucket, item.result.key)
            return True
        log.warning("job %s: %s: %s (%s)", item.id, name, outcome.error.message, outcome.error.code)
        return outcome.error.code in OVER


async def work(
    settings: ServerSettings, engines: Mapping[str, Engine], storage: Storage, queue: Queue, *, once: bool
) -> None:
    """Until SIGTERM, or, `once`, until the queue is empty. Raises what `QueueWorker.run` raises."""
    runtime = Runtime(settings, engines, storage)
    worker = QueueWorker(settings, runtime, storage, queue)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    try:
        await runtime.warm_up()
        await worker.run(once=once)
    finally:
        runtime.close()
