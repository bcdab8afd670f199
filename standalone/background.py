"""Processes jobs in the background: the queues and the asynchronous endpoint of `maskdrop serve`.

A message is a call of the code that a function of the stack runs for it (`maskdrop.flow`, `maskdrop.editing`,
`maskdrop.webhook`). Messages are in memory only: at its start the server queues the jobs of the table that are not
finished.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

from maskdrop.editing import edit_job
from maskdrop.errors import MaskdropError, Unavailable
from maskdrop.flow import RESPONSES_PREFIX, admit, record_bundle, sweep
from maskdrop.job import Job
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.webhook import BUSY_S, RETRY_S, OwnerBusy, bus_event, deliver
from maskdrop.wire import Bundle, BundleResponse, JobMessage, Notification, split_s3_uri
from sagemaker_model.serving.runtime import Runtime

log = logging.getLogger(__name__)

AGAIN_S = 5.0
"""Seconds before a message is processed again whose processing raised an error."""

ATTEMPTS_MAX = 12
"""Attempts of a message that raises errors: a minute. Its job stays in the table until the next start."""


class Background:
    """Calls handlers in threads, now or later. Must be created in the running event loop.

    threads: handlers that run at once.
    """

    def __init__(self, threads: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="jobs")
        self._closed = threading.Event()
        self._running: set[Future[None]] = set()

    def call(self, handler: Callable[[], object], *, delay_s: float = 0, attempt: int = 1) -> None:
        """Calls `handler` in a thread after `delay_s` seconds, and again if it raises Unavailable. Thread-safe."""

        def run() -> None:
            try:
                handler()
            except Unavailable as error:
                log.warning("a message is processed again: %s", error)
                if attempt < ATTEMPTS_MAX:
                    self.call(handler, delay_s=AGAIN_S, attempt=attempt + 1)
            except Exception:  # the boundary of a message
                if self._closed.is_set():
                    log.info("a message ends with the server; its job continues after the next start")
                else:
                    log.exception("a message failed")

        def start() -> None:
            if not self._closed.is_set():
                future = self._pool.submit(run)
                self._running.add(future)
                future.add_done_callback(self._running.discard)

        self._loop.call_soon_threadsafe(lambda: self._loop.call_later(delay_s, start))

    async def close(self, wait_s: float) -> None:
        """Drops the messages that wait, whose jobs remain in the table, and waits for the handlers that run."""
        self._closed.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if running := [asyncio.wrap_future(one) for one in list(self._running) if not one.done()]:
            await asyncio.wait(running, timeout=wait_s)


class LocalQueue:
    """Implements `maskdrop.services.Queue`. handler: processes the body of one message."""

    def __init__(self, background: Background, handler: Callable[[str], object]) -> None:
        self._background, self._handler = background, handler

    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:  # noqa: ARG002  no groups
        for body in bodies:
            self._background.call(partial(self._handler, body), delay_s=delay_s)

    def hide(self, receipt: str, *, seconds: int) -> None:
        """Messages have no receipts: `Background` processes them again itself."""
        raise NotImplementedError


class Jobs:
    """The handlers of messages. `services` is set once they exist, because they send messages to these handlers."""

    services: Services

    def __init__(
        self, settings: Settings, runtime: Runtime, loop: asyncio.AbstractEventLoop, background: Background, device: str
    ) -> None:
        self._settings, self._runtime, self._loop, self._background = settings, runtime, loop, background
        self._device = device

    def admit(self, body: str) -> None:
        """Claims a job and submits its bundle. Raises Unavailable."""
        (error,) = admit([JobMessage.from_body(body)], self._settings, self.services, _now())
        if error:
            raise error

    def edit(self, body: str) -> None:
        """Generates the images of a job with an edit. Raises Unavailable."""
        edit_job(JobMessage.from_body(body), self._settings, self.services, _now)

    def submit(self, bundle_id: str, input_uri: str) -> None:
        """Implements `maskdrop.services.Endpoint`: the pipeline processes the bundle in the background."""
        self._background.call(partial(self._process, bundle_id, input_uri))

    def publish(self, jobs: Sequence[Job]) -> None:
        """Implements `maskdrop.services.Events`: delivers the webhooks of finished jobs."""
        for job in jobs:
            if job.error:
                log.info("job %s failed: %s", job.id, job.error.message)
            if job.webhook:
                self._deliver(json.dumps(bus_event(job)), attempt=0)

    def resume(self) -> None:
        """Queues all jobs that an earlier process did not finish. Their messages ended with it."""
        settings, now = replace(self._settings, overdue_s=0), _now() + timedelta(seconds=1)
        sweep(settings, self.services, now, limit=sys.maxsize, delay_s=0)

    def _process(self, bundle_id: str, input_uri: str) -> None:
        bundle = Bundle.from_bytes(self.services.storage.read(*split_s3_uri(input_uri)))
        start = time.perf_counter()

        async def process() -> BundleResponse:
            await self._runtime.mark_started(bundle)
            outcomes = await asyncio.gather(*map(self._runtime.process, bundle.items))
            wall_ms = (time.perf_counter() - start) * 1000
            return BundleResponse(bundle_id, self._device, wall_ms, None, tuple(outcomes))

        response = asyncio.run_coroutine_threadsafe(process(), self._loop).result()
        key = f"{RESPONSES_PREFIX}{bundle_id}.out"
        self.services.storage.write(self._settings.results, key, response.to_bytes(), "application/json")
        output = f"s3://{self._settings.results}/{key}"
        record_bundle(Notification(bundle_id, True, input_uri, output, ""), self._settings, self.services, _now())

    def _deliver(self, event: str, attempt: int, waits: int = 0) -> None:
        """Delivers a webhook, and again after the delays of RETRY_S; after those of BUSY_S while its owner is busy."""

        def post() -> None:
            try:
                deliver(json.loads(event), self._settings, self.services, _now())
            except OwnerBusy:
                self._deliver(event, attempt, waits + 1)
            except MaskdropError as error:
                log.warning("webhook attempt %d failed: %s", attempt + 1, error)
                if attempt < len(RETRY_S):
                    self._deliver(event, attempt + 1)

        waiting_s = BUSY_S[min(waits, len(BUSY_S)) - 1] if waits else 0
        self._background.call(post, delay_s=waiting_s or (RETRY_S[attempt - 1] if attempt else 0))


def _now() -> datetime:
    return datetime.now(UTC)
