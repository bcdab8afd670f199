"""The batcher, with a fake engine that a test can keep busy."""

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
from sagemaker_model.engines.verification import Comparison
from sagemaker_model.serving.batcher import Batcher, OutOfMemory


@dataclass
class Doubling:
    """Doubles its input. Batches above `images_max` run out of memory; `hold` blocks it until it is set."""

    weights_sha256: str = ""
    images_max: int = 100
    hold: threading.Event | None = None
    error: Exception | None = None
    missing_outputs: int = 0
    batches: list[tuple[int, ...]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None: ...

    def predict(self, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        raise AssertionError("predict of a batched engine must not be called")

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        return ()

    def prepare(self, rgb: np.ndarray, prompts: Prompts) -> np.ndarray:
        return np.zeros((3, 2, 2), np.float32)

    def infer(self, batch: Sequence[np.ndarray]) -> Sequence[Any]:
        self.threads.add(threading.get_ident())
        self.batches.append(tuple(int(one.flat[0]) for one in batch))
        if self.hold:
            assert self.hold.wait(30)
        if self.error:
            raise self.error
        if len(batch) > self.images_max:
            raise type("OutOfMemoryError", (RuntimeError,), {})()
        return [2 * one for one in batch][: len(batch) - self.missing_outputs]

    def finish(self, output: Any, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        return Alpha(np.zeros((1, 1), np.float32))


def image(number: int, side: int = 2) -> np.ndarray:
    return np.full((3, side, side), number, np.float32)


def run(requests: Callable[[Batcher], Coroutine[Any, Any, None]], batch_max: int = 8, deadline_s: float = 30) -> None:
    async def main() -> None:
        batcher = Batcher(batch_max, deadline_s)
        try:
            await requests(batcher)
        finally:
            batcher.close()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - another thread changes it
            await asyncio.sleep(0.001)


def test_an_image_runs_alone_and_at_once_if_the_device_is_idle() -> None:
    engine = Doubling()

    async def requests(batcher: Batcher) -> None:
        assert (await batcher.infer("e", engine, image(7)) == 14).all()

    run(requests)
    assert engine.batches == [(7,)]


def test_images_that_arrive_while_the_device_is_busy_share_the_next_batch_in_order() -> None:
    engine = Doubling(hold=threading.Event())

    async def requests(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer("e", engine, image(0)))
        await until(lambda: len(engine.batches) == 1)
        rest = [asyncio.create_task(batcher.infer("e", engine, image(number))) for number in range(1, 12)]
        await asyncio.sleep(0)
        assert engine.hold
        engine.hold.set()
        outputs = [await first, *[await one for one in rest]]
        assert [int(output.flat[0]) for output in outputs] == [2 * number for number in range(12)]

    run(requests, batch_max=8)
    assert engine.batches == [(0,), (1, 2, 3, 4, 5, 6, 7, 8), (9, 10, 11)]


def test_a_batch_has_one_engine_and_shape_and_the_longest_waiting_queue_runs_first() -> None:
    one, other = Doubling(hold=threading.Event()), Doubling()

    async def requests(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer("one", one, image(0)))
        await until(lambda: len(one.batches) == 1)
        waiting = [
            asyncio.create_task(batcher.infer("one", one, image(1, side=4))),
            asyncio.create_task(batcher.infer("other", other, image(2))),
            asyncio.create_task(batcher.infer("one", one, image(3))),
            asyncio.create_task(batcher.infer("one", one, image(4, side=4))),
        ]
        await asyncio.sleep(0)
        assert one.hold
        one.hold.set()
        await asyncio.gather(first, *waiting)

    run(requests)
    assert one.batches == [(0,), (1, 4), (3,)]
    assert other.batches == [(2,)]


def test_one_thread_runs_all_batches() -> None:
    engine = Doubling()

    async def requests(batcher: Batcher) -> None:
        for number in range(5):
            await batcher.infer("e", engine, image(number))

    run(requests)
    assert len(engine.threads) == 1


def test_a_batch_too_large_for_the_memory_is_halved_until_it_fits() -> None:
    engine = Doubling(images_max=2, hold=threading.Event())

    async def requests(batcher: Batcher) -> None:
        tasks = [asyncio.create_task(batcher.infer("e", engine, image(number))) for number in range(9)]
        await until(lambda: len(engine.batches) == 1)
        assert engine.hold
        engine.hold.set()
        outputs = await asyncio.gather(*tasks)
        assert [int(output.flat[0]) for output in outputs] == [2 * number for number in range(9)]

    run(requests)
    assert max(len(batch) for batch in engine.batches) > 2
    assert [batch for batch in engine.batches if len(batch) <= 2]


def test_an_image_that_does_not_fit_fails_and_the_next_one_runs() -> None:
    engine = Doubling(images_max=0)

    async def requests(batcher: Batcher) -> None:
        with pytest.raises(OutOfMemory) as raised:
            await batcher.infer("e", engine, image(1))
        assert raised.value.retryable
        engine.images_max = 1
        await batcher.infer("e", engine, image(2))

    run(requests)


def test_an_error_of_the_engine_fails_its_batch_and_no_other() -> None:
    engine = Doubling(error=ValueError("broken"))

    async def requests(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="broken"):
            await batcher.infer("e", engine, image(1))
        engine.error = None
        await batcher.infer("e", engine, image(2))

    run(requests)


def test_too_few_outputs_raise_an_error() -> None:
    engine = Doubling(missing_outputs=1)

    async def requests(batcher: Batcher) -> None:
        with pytest.raises(Internal, match="0 outputs for 1"):
            await batcher.infer("e", engine, image(1))

    run(requests)


def test_the_image_of_a_cancelled_caller_is_not_run() -> None:
    engine = Doubling(hold=threading.Event())

    async def requests(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.infer("e", engine, image(0)))
        await until(lambda: len(engine.batches) == 1)
        cancelled, stays = (asyncio.create_task(batcher.infer("e", engine, image(number))) for number in (1, 2))
        await asyncio.sleep(0)
        cancelled.cancel()
        assert engine.hold
        engine.hold.set()
        await asyncio.gather(first, stays)

    run(requests)
    assert engine.batches == [(0,), (2,)]


def test_a_stuck_batch_raises_deadline_exceeded_and_counts_as_stuck_until_it_ends() -> None:
    engine = Doubling(hold=threading.Event())

    async def requests(batcher: Batcher) -> None:
        with pytest.raises(DeadlineExceeded):
            await batcher.infer("e", engine, image(1))
        assert batcher.stuck == 1
        assert engine.hold
        engine.hold.set()
        await until(lambda: batcher.stuck == 0)

    run(requests, deadline_s=0.05)
