"""The threads in which pixels are worked, and how much may wait for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from maskdrop.errors import DeadlineExceeded, QueueFull

log = logging.getLogger(__name__)

T = TypeVar("T")


class Workers:
    """`count` threads. Nothing queues inside the pool: an image's deadline runs from when a thread picks it, not while
    it waits behind others. A thread cannot be stopped: one that outlives the deadline is `stuck` until it comes back,
    its place is not given away, and the server is not ready."""

    def __init__(self, count: int, deadline_s: float) -> None:
        self.count = count
        self.stuck = 0
        self._deadline_s = deadline_s
        self._free = asyncio.Semaphore(count)
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="pixels")

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. Raises DeadlineExceeded."""
        await self._place()
        future = asyncio.get_running_loop().run_in_executor(self._pool, work)
        late = False

        def back(_: asyncio.Future[T]) -> None:
            self._free.release()
            if late:
                self.stuck -= 1
                log.warning("a stuck worker came back; %d stuck", self.stuck)

        future.add_done_callback(back)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._deadline_s)
        except TimeoutError:
            if future.done():
                raise  # the work's own TimeoutError
            late = True
            self.stuck += 1
            log.error("a worker is stuck; %d of %d", self.stuck, self.count)
            raise DeadlineExceeded(f"The image took longer than {self._deadline_s:g} s.") from None

    async def _place(self) -> None:
        """A free thread. Where all are stuck, waiting for one is no use. Raises DeadlineExceeded."""
        while True:
            if self.stuck >= self.count:
                raise DeadlineExceeded("Every worker of the model server is stuck.")
            try:
                await asyncio.wait_for(self._free.acquire(), self._deadline_s)
            except TimeoutError:
                continue
            return

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Admission:
    """How many images and how many bytes of bodies are in the server, waiting or in work. Above its bounds it says
    no at once: nothing ever grows. An idle server takes anything."""

    def __init__(self, pictures_max: int, bytes_max: int) -> None:
        self.pictures = 0
        self.bytes = 0
        self._pictures_max = pictures_max
        self._bytes_max = bytes_max

    @contextmanager
    def admit(self, pictures: int, size: int = 0) -> Iterator[None]:
        """Raises QueueFull."""
        if self.pictures and (self.pictures + pictures > self._pictures_max or self.bytes + size > self._bytes_max):
            raise QueueFull(f"The model server is busy with {self.pictures} images: try again in a few seconds.")
        self.pictures += pictures
        self.bytes += size
        try:
            yield
        finally:
            self.pictures -= pictures
            self.bytes -= size
