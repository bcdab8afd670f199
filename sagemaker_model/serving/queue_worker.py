"""The command `worker`: processes the images that messages in SQS name.

It is for containers that run without SageMaker: on ECS, on EC2, or on your own machine. A message is one of:

- an event notification of S3, direct or through SNS; each photo has the built-in preset of its folder;
- a JSON object for one image, of which only the key is required:

    {"bucket": "…", "key": "…", "version_id": "…", "task": "…", "engine": "…", "prompt": {…}, "output": {…}}

A message is deleted when all of its images are done and recorded. Otherwise SQS redelivers it, until the queue's
redrive policy moves it to the dead-letter queue. So no image is lost, and the worker keeps no state. Every image has a
row in a table, with the JSON of a job.

While a message is processed, the worker extends its visibility timeout. Another worker gets the message of a crashed
worker when that timeout ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain, repeat
from typing import Any, TypeVar

from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.errors import (
    DeadlineExceeded,
    DirectoryMarker,
    ErrorInfo,
    InvalidOptions,
    MaskdropError,
    QueueUnavailable,
    SourceMissing,
    SourceReplaced,
)
from maskdrop.flow import new_jobs
from maskdrop.job import RESULTS_PREFIX, Job, Source, queued
from maskdrop.options import Options
from maskdrop.record import iso
from maskdrop.wire import Outcome, bundle_of, sources_of
from sagemaker_model.detectors.base import Detector
from sagemaker_model.engines.base import Engine
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.serving.queue import POLL_S, RECEIVE_MAX, Message, Queue
from sagemaker_model.serving.rows import Rows
from sagemaker_model.serving.runtime import Runtime, in_flight_max
from sagemaker_model.serving.storage import Storage
from sagemaker_model.serving.worker_settings import WorkerSettings
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""Seconds before a call to SQS is retried, after its first, second … failure in a row."""

ONCE_POLL_S = 1
"""Seconds that SQS waits for a message if `once`. Without a wait, SQS queries only some of its servers."""

FINAL_ERRORS = (SourceMissing.code, SourceReplaced.code)
"""Errors that are not retried: the photo was deleted, or a newer one has its own message."""

HEARTBEATS = 3
"""Extensions of the visibility timeout within one timeout: two of them may fail."""


@dataclass(frozen=True, slots=True)
class Parser:
    """Parses messages.

    source: bucket of messages that name a key alone. results: bucket of the results.
    engine: of cut-outs whose message or preset names none; "" for the default engine.
    """

    source: str
    results: str
    storage: Storage
    engine: str = ""

    def parse(self, body: str) -> list[Job]:
        """Returns the jobs of a message. Those of empty files are in state `failed`.

        S3's test event has none, and folder markers are skipped. So are objects under the results prefix of the results
        bucket: a notification of that bucket would process its own results without end. Raises InvalidOptions,
        InvalidPrompt, UnknownEngine, StorageUnavailable and NotAllowed.
        """
        try:
            jobs = self._parse(json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InvalidOptions(
                "The message is neither an S3 event notification nor an object of bucket, key and options."
            ) from error
        return [
            job
            for job in jobs
            if not (job.error and job.error.code == DirectoryMarker.code)
            and not (job.source.bucket == self.results and job.source.key.startswith(RESULTS_PREFIX))
        ]

    def _parse(self, data: Any) -> list[Job]:
        now = datetime.now(UTC)
        match data:
            case {"Type": "Notification", "Message": str(message)}:  # SNS
                return self._parse(json.loads(message))
            case {"Records": _} | {"Event": "s3:TestEvent"}:
                return [self._with_engine(job) for job in new_jobs(sources_of(data), now)]
            case {"key": str(key), **options}:
                bucket = str(options.pop("bucket", self.source))
                version_id = str(options.pop("version_id", "") or self._current_version(bucket, key))
                new = queued(Source(bucket, key, version_id), "", Options.from_json(options), now)
                if key.endswith("/"):
                    return []
                return [new if "engine" in options else self._with_engine(new)]
        raise ValueError

    def _with_engine(self, job: Job) -> Job:
        """Returns the job with `engine` instead of the default engine. Prompts need an engine that supports them."""
        options = job.options
        if not self.engine or options.engine != DEFAULT_ENGINE["cutout"] or options.task == "detect" or options.prompts:
            return job
        changed = queued(job.source, job.preset, replace(options, engine=self.engine), job.created_at)
        return replace(job, id=changed.id, options=changed.options)

    def _current_version(self, bucket: str, key: str) -> str:
        """Returns the version id or ETag of the current object, "" if there is no object.

        It is part of the job's id, so that a replaced photo is a new job.
        """
        stored = self.storage.head(bucket, key)
        return (stored.version_id or stored.etag) if stored else ""


def recorded(job: Job, outcome: Outcome, now: datetime) -> Job:
    """Returns the job after an attempt: done, failed, or queued again after a retryable error."""
    if outcome.error and outcome.error.retryable:
        return replace(job, state="queued", error=outcome.error, changed_at=now)
    return replace(
        job,
        state="failed" if outcome.error else "done",
        result=outcome.result,
        results=outcome.results,
        subject=outcome.subject,
        warnings=outcome.warnings,
        timings=dict(outcome.timings),
        error=outcome.error,
        cost_usd=outcome.cost_usd,
        attempts=1,
        changed_at=now,
        finished_at=now,
    )


class QueueWorker:
    """Receives messages and processes their images. Must be created inside the running event loop.

    It processes as many messages at once as the runtime processes images, so that some images are read and written
    while others are computed. Two workers that spend 0.1 s in S3 on an image of 512x512 process 20 images a second;
    with two messages at once, 9.
    """

    def __init__(
        self,
        settings: ServerSettings,
        worker: WorkerSettings,
        runtime: Runtime,
        queue: Queue,
        rows: Rows,
        parser: Parser,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        self._settings, self._worker = settings, worker
        self._runtime, self._queue, self._rows, self._parser = runtime, queue, rows, parser
        self._pauses_s = pauses_s
        self._has_dead_letters = True
        self._slots = asyncio.Semaphore(in_flight_max(settings.workers))
        self._in_progress: dict[asyncio.Task[None], Message] = {}
        self._stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def stop(self) -> None:
        """Stops receiving messages. A message that SQS returns at this moment is redelivered later."""
        if not self._stopped.done():
            self._stopped.set_result(None)

    async def run(self) -> None:
        """Processes messages until `stop`; with `break_loop`, until the queue returns no new message.

        After `stop` or an error, images in progress have drain_s seconds to end. The messages of the others return to
        the queue at once. Raises NotAllowed, and DeadlineExceeded if a thread is stuck: the process must be restarted
        to have all threads again.
        """
        try:
            if await self._call_queue(self._queue.has_dead_letters) is False:
                self._has_dead_letters = False
                log.warning("the queue has no redrive policy: messages of invalid images are deleted after the attempt")
            await self._receive(once=self._worker.break_loop)
        finally:
            if self._in_progress:
                _, unfinished = await asyncio.wait(self._in_progress, timeout=self._settings.drain_s)
                if unfinished:
                    log.warning("not finished in time, redelivered: %d messages", len(unfinished))
                    await asyncio.gather(*(self._return(self._in_progress[task]) for task in unfinished))

    async def _receive(self, *, once: bool) -> None:
        messages_max = in_flight_max(self._settings.workers)
        seen: set[str] = set()
        while not self._stopped.done():
            await self._wait_until_at_most(messages_max - 1)
            if self._runtime.stuck:
                raise DeadlineExceeded("A thread is stuck with an image: the worker ends and must be restarted.")
            count = min(messages_max - len(self._in_progress), RECEIVE_MAX)
            wait_s = ONCE_POLL_S if once else POLL_S
            receive = partial(self._queue.receive, count, wait_s=wait_s, visibility_timeout_s=self._worker.visibility_s)
            messages = await self._call_queue(receive) or []
            if once:
                messages = [message for message in messages if message.id not in seen]
                seen |= {message.id for message in messages}
                if not messages:
                    await self._wait_until_at_most(0)
                    break
            for message in messages:
                task = asyncio.create_task(self._process_message(message))
                self._in_progress[task] = message
                task.add_done_callback(lambda done: self._in_progress.pop(done, None))

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
            async with self._hidden(message):
                finished = await self._process_images(message)
            if finished is None:
                await self._return(message)
            elif finished and self._worker.delete_sqs_message:
                await self._runtime.run_io(partial(self._queue.delete, message))
        except MaskdropError as error:
            log.error("message %s is not deleted: %s (%s)", message.id, error, error.code)
        except Exception:  # the boundary of a message: the others go on
            log.exception("message %s is not deleted", message.id)

    async def _process_images(self, message: Message) -> bool | None:
        """Returns whether the message needs no retry; None if the worker was stopped before all images were started."""
        try:
            jobs = await self._runtime.run_io(partial(self._parser.parse, message.body))
        except MaskdropError as error:
            if error.retryable or self._has_dead_letters:
                raise
            log.error("message %s is deleted: %s (%s)", message.id, error, error.code)
            await self._write(
                {"id": message.id, "state": "failed", "error": error.info.to_json(), "body": message.body}
            )
            return True
        done = await asyncio.gather(*(self._process_image(job) for job in jobs))
        return None if None in done else all(done)

    async def _process_image(self, job: Job) -> bool | None:
        """Returns whether the image needs no retry; None if it was not started."""
        async with self._slots:
            if self._stopped.done():
                return None
            if job.error:
                outcome = Outcome(job.id, job.options.engine, error=job.error)
            else:
                [item] = bundle_of("", [job], self._parser.results).items
                outcome = await self._runtime.process(item)
        await self._write(recorded(job, outcome, datetime.now(UTC)).to_json())
        source = f"s3://{job.source.bucket}/{job.source.key}"
        if outcome.error is None and outcome.result:
            log.info(
                "job %s: the result of %s is s3://%s/%s", job.id, source, outcome.result.bucket, outcome.result.key
            )
            log.debug("job %s: %s", job.id, outcome.to_json())
            return True
        error = outcome.error or ErrorInfo("internal", "The image has no result.", True)
        log.warning("job %s: %s: %s (%s)", job.id, source, error.message, error.code)
        return error.code in FINAL_ERRORS or not (error.retryable or self._has_dead_letters)

    async def _write(self, row: dict[str, Any]) -> None:
        await self._runtime.run_io(partial(self._rows.write, {"changed_at": iso(datetime.now(UTC)), **row}))

    @asynccontextmanager
    async def _hidden(self, message: Message) -> AsyncIterator[None]:
        """Extends the visibility timeout of a message while the block runs."""
        ended = asyncio.Event()

        async def extend() -> None:
            while True:
                try:
                    await asyncio.wait_for(ended.wait(), self._worker.visibility_s / HEARTBEATS)
                    return
                except TimeoutError:
                    await self._hide(message, self._worker.visibility_s)

        heartbeat = asyncio.create_task(extend())
        try:
            yield
        finally:
            ended.set()
            await heartbeat

    async def _return(self, message: Message) -> None:
        """Returns a message to the queue at once, for another worker."""
        await self._hide(message, 0)

    async def _hide(self, message: Message, seconds: int) -> None:
        """An error is only logged: at the end of its visibility timeout the message is redelivered."""
        try:
            await asyncio.to_thread(self._queue.hide, message, seconds)  # the runtime's threads may all wait for S3
        except MaskdropError as error:
            log.warning("the visibility timeout of message %s is unchanged: %s", message.id, error)


async def run_worker(
    settings: ServerSettings,
    worker_settings: WorkerSettings,
    engines: Mapping[str, Engine],
    storage: Storage,
    queue: Queue,
    rows: Rows,
    detectors: Mapping[str, Detector] | None = None,
    refiner: Refiner | None = None,
    *,
    engine: str = "",
) -> None:
    """Processes messages until SIGTERM or SIGINT, or, with `break_loop`, until the queue is empty.

    engine: of cut-outs whose message or preset names none; "" for the default engine. Raises what `QueueWorker.run`
    raises.
    """
    runtime = Runtime(settings, engines, storage, detectors, refiner)
    parser = Parser(
        worker_settings.aws_source_bucket_name, worker_settings.aws_target_bucket_name, storage, engine=engine
    )
    worker = QueueWorker(settings, worker_settings, runtime, queue, rows, parser)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, worker.stop)
    try:
        await runtime.warm_up()
        await worker.run()
    finally:
        runtime.close()
