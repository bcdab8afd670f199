"""The threads that process images, and the bounds on what may wait for them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from maskdrop.errors import DeadlineExceeded, QueueFull

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(slots=True)
class _Place:
    """The place of one call. lent: it was given to another call. returned: the call has ended."""

    lent: bool = False
    returned: bool = False


class Workers:
    """A pool of `count` threads with a deadline for each call. Must be created inside the running event loop.

    Calls wait for a free thread outside the pool, so the deadline runs from the moment a thread starts the call. A
    thread cannot be stopped: one that exceeds the deadline counts as `stuck` until it returns. A stuck thread takes no
    other calls, and meanwhile the server is not ready.

    A call that waits for another process may `lend` its place: another starts, in one of `lendable` further threads.
    """

    def __init__(self, count: int, deadline_s: float, lendable: int = 0) -> None:
        self.count = count
        self.stuck = 0
        self._deadline_s = deadline_s
        self._lent, self._lendable = 0, lendable
        self._free = asyncio.Semaphore(count)
        self._loop = asyncio.get_running_loop()
        self._here = threading.local()
        self._pool = ThreadPoolExecutor(count + lendable, thread_name_prefix="pixels")

    async def run(self, call: Callable[[], T]) -> T:
        """Runs `call` in a thread; returns its result or raises its error. Raises DeadlineExceeded."""
        await self._acquire_thread()
        place, late = _Place(), False

        def placed() -> T:
            self._here.place = place
            return call()

        future = asyncio.get_running_loop().run_in_executor(self._pool, placed)

        def release(_: asyncio.Future[T]) -> None:
            if place.lent:
                self._lent -= 1
            else:
                self._free.release()
            place.returned = True
            if late:
                self.stuck -= 1
                log.warning("a stuck worker finished; %d stuck", self.stuck)

        future.add_done_callback(release)
        try:
            return await asyncio.wait_for(asyncio.shield(future), self._deadline_s)
        except TimeoutError:
            if future.done():
                raise  # the call's own TimeoutError
            late = True
            self.stuck += 1
            log.error("a worker is stuck; %d of %d", self.stuck, self.count)
            raise DeadlineExceeded(f"The image took longer than {self._deadline_s:g} s: try a smaller image.") from None

    def lend(self) -> None:
        """Frees the place of the call that runs in this thread, unless `lendable` places are lent already."""
        self._loop.call_soon_threadsafe(self._lend, self._here.place)

    def _lend(self, place: _Place) -> None:
        if self._lent < self._lendable and not (place.lent or place.returned):
            place.lent = True
            self._lent += 1
            self._free.release()

    async def _acquire_thread(self) -> None:
        """Waits for a free thread. Raises DeadlineExceeded if all threads are stuck."""
        while True:
            if self.stuck >= self.count:
                raise DeadlineExceeded("Every worker of the model server is stuck: try again later.")
            try:
                await asyncio.wait_for(self._free.acquire(), self._deadline_s)
            except TimeoutError:
                continue
            return

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Admission:
    """Bounds the number of images and the bytes of request bodies in the server, waiting or in progress.

    Requests above the bounds are refused at once. An idle server admits a request of any size.
    """

    def __init__(self, images_max: int, bytes_max: int) -> None:
        self.images = 0
        self.bytes = 0
        self._images_max = images_max
        self._bytes_max = bytes_max

    @contextmanager
    def admit(self, images: int, size: int = 0) -> Iterator[Callable[[int], None]]:
        """Counts `images` and `size` bytes while the context is open. Raises QueueFull.

        Yields a function that counts further bytes, of a body whose size is not known. It raises QueueFull, too.
        """
        others, held = self.images, 0

        def more(added: int) -> None:
            nonlocal held
            if others and self.bytes + added > self._bytes_max:
                raise self._full()
            held += added
            self.bytes += added

        if others and others + images > self._images_max:
            raise self._full()
        more(size)
        self.images += images
        try:
            yield more
        finally:
            self.images -= images
            self.bytes -= held

    def _full(self) -> QueueFull:
        return QueueFull(f"The model server is busy with {self.images} images: try again in a few seconds.")
