"""Batches across requests, for the one device.

An image that finds the device idle goes at once, alone. While the device is busy, images collect by engine and
shape; when it is free again, those whose first has waited longest go together, as many as `batch_max`. So nobody waits
for a batch to fill, and the busier the device, the larger its batches.
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
    """One image alone does not fit into the device's memory, beside what is there at the moment."""

    code = "out_of_memory"


@dataclass(frozen=True, slots=True)
class _Waiting:
    prepared: Prepared
    output: asyncio.Future[Any]


@dataclass(slots=True)
class _Bucket:
    """What waits for one engine in one shape, in the order of arrival. `since` numbers the first one's arrival."""

    engine: BatchedEngine
    waiting: deque[tuple[int, _Waiting]]

    @property
    def since(self) -> int:
        return self.waiting[0][0]


class Batcher:
    """Made inside the running event loop. `deadline_s` is for one batch; `observe` hears the size of each."""

    def __init__(
        self, batch_max: int, deadline_s: float, observe: Callable[[str, int], None] = lambda _engine, _size: None
    ) -> None:
        self._batch_max = batch_max
        self._device = Workers(1, deadline_s)
        self._observe = observe
        self._buckets: dict[tuple[str, tuple[int, ...]], _Bucket] = {}
        self._arrivals = 0
        self._running: asyncio.Task[None] | None = None

    @property
    def stuck(self) -> int:
        """1 while a batch has outlived its deadline and the device has not come back."""
        return self._device.stuck

    async def infer(self, name: str, engine: BatchedEngine, prepared: Prepared) -> Any:
        """The engine's output for one image. Raises DeadlineExceeded, OutOfMemory, and what the engine raises."""
        waiting = _Waiting(prepared, asyncio.get_running_loop().create_future())
        bucket = self._buckets.setdefault((name, prepared.shape), _Bucket(engine, deque()))
        bucket.waiting.append((self._arrivals, waiting))
        self._arrivals += 1
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._run())
        return await waiting.output

    def close(self) -> None:
        if self._running:
            self._running.cancel()
        self._device.close()

    async def _run(self) -> None:
        """Until nothing waits."""
        while self._buckets:
            key, bucket = min(self._buckets.items(), key=lambda entry: entry[1].since)
            size = min(len(bucket.waiting), self._batch_max)
            batch = [bucket.waiting.popleft()[1] for _ in range(size)]
            if not bucket.waiting:
                del self._buckets[key]
            # A caller that has gone leaves a cancelled future behind: no work is done for it.
            batch = [one for one in batch if not one.output.done()]
            if batch:
                self._observe(key[0], len(batch))
                await self._serve(bucket.engine, batch)

    async def _serve(self, engine: BatchedEngine, batch: Sequence[_Waiting]) -> None:
        """Answers every image of a batch; halves it where the device's memory is too small for the whole."""
        try:
            outputs = await self._device.run(lambda: engine.infer([one.prepared for one in batch]))
            if len(outputs) != len(batch):
                raise Internal(f"The engine gave {len(outputs)} outputs for {len(batch)} images.")
        except Exception as error:  # noqa: BLE001  the rim of a batch: its callers raise it, each for its own image
            if _is_out_of_memory(error) and len(batch) > 1:
                log.warning("a batch of %d does not fit into the device's memory: halved", len(batch))
                middle = len(batch) // 2
                await self._serve(engine, batch[:middle])
                await self._serve(engine, batch[middle:])
                return
            if _is_out_of_memory(error):
                error = OutOfMemory("The image does not fit into the device's memory at the moment.")
            if isinstance(error, DeadlineExceeded):
                log.error("a batch of %d outlived its deadline", len(batch))
            for one in batch:
                if not one.output.done():
                    one.output.set_exception(error)
            return
        for one, output in zip(batch, outputs, strict=True):
            if not one.output.done():
                one.output.set_result(output)


def _is_out_of_memory(error: Exception) -> bool:
    """Python's own error, or torch's, which is told by its name: torch need not be installed here."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
