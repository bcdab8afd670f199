"""Batches the images of all requests for one device.

If the device is idle, an image runs at once, alone. While the device is busy, images are queued by engine and shape.
When it is free again, the queue whose first image has waited longest runs next, up to `batch_max` images. So no image
waits for a batch to fill, and the busier the device, the larger the batches.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from maskdrop.errors import DeadlineExceeded, Internal, Unavailable
from sagemaker_model.engines.base import BatchedEngine, Prepared
from sagemaker_model.serving.workers import Workers

log = logging.getLogger(__name__)


class OutOfMemory(Unavailable):
    """A single image does not fit into the free memory of the device."""

    code = "out_of_memory"


@dataclass(frozen=True, slots=True)
class _QueuedImage:
    prepared: Prepared
    output: asyncio.Future[Any]


@dataclass(slots=True)
class _Queue:
    """The queue of one engine and shape, in the order of arrival. `since` is the arrival number of the first image."""

    engine: BatchedEngine
    images: deque[tuple[int, _QueuedImage]]

    @property
    def since(self) -> int:
        return self.images[0][0]


class Batcher:
    """Queues images and runs them in batches. Must be created inside the running event loop.

    deadline_s: of one batch. observe: called with the engine's name and the size of each batch.
    """

    def __init__(
        self, batch_max: int, deadline_s: float, observe: Callable[[str, int], None] = lambda _engine, _size: None
    ) -> None:
        self._batch_max = batch_max
        self._device = Workers(1, deadline_s)
        self._observe = observe
        self._queues: dict[tuple[str, tuple[int, ...]], _Queue] = {}
        self._arrivals = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def stuck(self) -> int:
        """1 while a batch that has exceeded its deadline still runs, else 0."""
        return self._device.stuck

    async def infer(self, name: str, engine: BatchedEngine, prepared: Prepared) -> Any:
        """Returns the engine's output for one image. Raises DeadlineExceeded, OutOfMemory, and what the engine
        raises."""
        image = _QueuedImage(prepared, asyncio.get_running_loop().create_future())
        queue = self._queues.setdefault((name, prepared.shape), _Queue(engine, deque()))
        queue.images.append((self._arrivals, image))
        self._arrivals += 1
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run_queues())
        return await image.output

    def close(self) -> None:
        if self._running:
            self._running.cancel()
        self._device.close()

    async def _run_queues(self) -> None:
        """Runs batches until all queues are empty."""
        while self._queues:
            key, queue = min(self._queues.items(), key=lambda entry: entry[1].since)
            size = min(len(queue.images), self._batch_max)
            batch = [queue.images.popleft()[1] for _ in range(size)]
            if not queue.images:
                del self._queues[key]
            # The future of a caller that has disconnected is cancelled: its image is skipped.
            batch = [one for one in batch if not one.output.done()]
            if batch:
                self._observe(key[0], len(batch))
                await self._run_batch(queue.engine, batch)

    async def _run_batch(self, engine: BatchedEngine, batch: Sequence[_QueuedImage]) -> None:
        """Sets the output of every image of a batch; halves the batch if it does not fit into the device's memory."""
        try:
            outputs = await self._device.run(lambda: engine.infer([one.prepared for one in batch]))
            if len(outputs) != len(batch):
                raise Internal(f"The engine returned {len(outputs)} outputs for {len(batch)} images.")
        except Exception as error:  # noqa: BLE001 - the boundary of a batch: each caller raises it
            if _is_out_of_memory(error) and len(batch) > 1:
                log.warning("a batch of %d images does not fit into the device's memory: it is halved", len(batch))
                middle = len(batch) // 2
                await self._run_batch(engine, batch[:middle])
                await self._run_batch(engine, batch[middle:])
                return
            if _is_out_of_memory(error):
                error = OutOfMemory("The image does not fit into the device's free memory: try again later.")
            if isinstance(error, DeadlineExceeded):
                log.error("a batch of %d images exceeded its deadline", len(batch))
            for one in batch:
                if not one.output.done():
                    one.output.set_exception(error)
            return
        for one, output in zip(batch, outputs, strict=True):
            if not one.output.done():
                one.output.set_result(output)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether it is Python's MemoryError or torch's OutOfMemoryError, compared by name: torch need not be installed."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
