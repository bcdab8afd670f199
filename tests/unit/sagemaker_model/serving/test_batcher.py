"""The batcher, with an engine whose device a test holds busy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskdrop.errors import DeadlineExceeded, Internal
from maskdrop.prompt import Prompts
from sagemaker_model.engines.base import Alpha
from sagemaker_model.serving.batcher import Batcher, OutOfMemory


@dataclass
class Doubling:
    """Doubles its input. `fits` is how many images its memory takes; `held` keeps it at work until it is set."""

    weights_sha256: str = ""
    fits: int = 100
    held: threading.Event | None = None
    fault: Exception | None = None
    forgets: int = 0
    batches: list[tuple[int, ...]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def setup(self, device: str, weights_dir: Path) -> None: ...

    def predict(self, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        raise AssertionError("a batched engine is not asked for one image")

    def warm_up(self, batch_max: int) -> None: ...

    def prepare(self, rgb: np.ndarray, prompts: Prompts) -> np.ndarray:
        return np.zeros((3, 2, 2), np.float32)

    def infer(self, batch: Sequence[np.ndarray]) -> Sequence[Any]:
        self.threads.add(threading.get_ident())
        self.batches.append(tuple(int(one.flat[0]) for one in batch))
        if self.held:
            assert self.held.wait(30)
        if self.fault:
            raise self.fault
        if len(batch) > self.fits:
            raise type("OutOfMemoryError", (RuntimeError,), {})()
        return [2 * one for one in batch][: len(batch) - self.forgets]

    def finish(self, output: Any, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        return Alpha(np.zeros((1, 1), np.float32))


def picture(number: int, side: int = 2) -> np.ndarray:
    return np.full((3, side, side), number, np.float32)


def run(work: Callable[[Batcher], Coroutine[Any, Any, None]], batch_max: int = 8, deadline_s: float = 30) -> None:
    async def main() -> None:
        batcher = Batcher(batch_max, deadline_s)
        try:
            await work(batcher)
        finally:
            batcher.close()

    asyncio.run(main())


async def until(held: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not held():  # noqa: ASYNC110  it is another thread that changes it
            await asyncio.sleep(0.001)


def test_a_picture_that_finds_the_device_idle_goes_alone_and_at_once() -> None:
    engine = Doubling()

    async def work(batcher: Batcher) -> None:
        assert (await batcher.infer("e", engine, picture(7)) == 14).all()

    run(work)
    assert engine.batches == [(7,)]


def test_pictures_that_come_while_the_device_is_busy_share_the_next_batch_in_their_order() -> None:
    engine = Doubling(held=threading.Event())

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer("e", engine, picture(0)))
        await until(lambda: len(engine.batches) == 1)
        rest = [asyncio.create_task(batcher.infer("e", engine, picture(number))) for number in range(1, 12)]
        await asyncio.sleep(0)
        assert engine.held
        engine.held.set()
        outputs = [await first, *[await one for one in rest]]
        assert [int(output.flat[0]) for output in outputs] == [2 * number for number in range(12)]

    run(work, batch_max=8)
    assert engine.batches == [(0,), (1, 2, 3, 4, 5, 6, 7, 8), (9, 10, 11)]


def test_shapes_and_engines_do_not_mix_and_the_longest_waiting_goes_first() -> None:
    one, other = Doubling(held=threading.Event()), Doubling()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer("one", one, picture(0)))
        await until(lambda: len(one.batches) == 1)
        waiting = [
            asyncio.create_task(batcher.infer("one", one, picture(1, side=4))),
            asyncio.create_task(batcher.infer("other", other, picture(2))),
            asyncio.create_task(batcher.infer("one", one, picture(3))),
            asyncio.create_task(batcher.infer("one", one, picture(4, side=4))),
        ]
        await asyncio.sleep(0)
        assert one.held
        one.held.set()
        await asyncio.gather(first, *waiting)

    run(work)
    assert one.batches == [(0,), (1, 4), (3,)]
    assert other.batches == [(2,)]


def test_one_thread_serves_the_device() -> None:
    engine = Doubling()

    async def work(batcher: Batcher) -> None:
        for number in range(5):
            await batcher.infer("e", engine, picture(number))

    run(work)
    assert len(engine.threads) == 1


def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits() -> None:
    engine = Doubling(fits=2, held=threading.Event())

    async def work(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.infer("e", engine, picture(number))) for number in range(9)]
        await until(lambda: len(engine.batches) == 1)
        assert engine.held
        engine.held.set()
        outputs = await asyncio.gather(*tasks)
        assert [int(output.flat[0]) for output in outputs] == [2 * number for number in range(9)]

    run(work)
    assert max(len(batch) for batch in engine.batches) > 2
    assert [batch for batch in engine.batches if len(batch) <= 2]


def test_a_picture_that_does_not_fit_alone_fails_and_the_device_goes_on() -> None:
    engine = Doubling(fits=0)

    async def work(batcher: Batcher) -> None:
        with pytest.raises(OutOfMemory) as raised:
            await batcher.infer("e", engine, picture(1))
        assert raised.value.retryable
        engine.fits = 1
        await batcher.infer("e", engine, picture(2))

    run(work)


def test_an_engine_that_fails_fails_every_picture_of_the_batch_and_no_other() -> None:
    engine = Doubling(fault=ValueError("broken"))

    async def work(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="broken"):
            await batcher.infer("e", engine, picture(1))
        engine.fault = None
        await batcher.infer("e", engine, picture(2))

    run(work)


def test_an_engine_that_loses_a_picture_is_found_out() -> None:
    engine = Doubling(forgets=1)

    async def work(batcher: Batcher) -> None:
        with pytest.raises(Internal, match="0 outputs for 1"):
            await batcher.infer("e", engine, picture(1))

    run(work)


def test_a_caller_that_has_gone_costs_no_work() -> None:
    engine = Doubling(held=threading.Event())

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer("e", engine, picture(0)))
        await until(lambda: len(engine.batches) == 1)
        gone, stays = (asyncio.create_task(batcher.infer("e", engine, picture(number))) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        assert engine.held
        engine.held.set()
        await asyncio.gather(first, stays)

    run(work)
    assert engine.batches == [(0,), (2,)]


def test_a_hanging_device_is_told_and_its_batch_does_not_wait_for_ever() -> None:
    engine = Doubling(held=threading.Event())

    async def work(batcher: Batcher) -> None:
        with pytest.raises(DeadlineExceeded):
            await batcher.infer("e", engine, picture(1))
        assert batcher.stuck == 1
        assert engine.held
        engine.held.set()
        await until(lambda: batcher.stuck == 0)

    run(work, deadline_s=0.05)
