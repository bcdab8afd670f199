"""The way of an image through the engines, the threads and S3, however it came: `server.py` takes it by HTTP.

One process. Pixels are worked by as many threads as there are cores; S3 is read and written by threads of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeGuard, TypeVar

import numpy as np

from maskdrop import catalog
from maskdrop.errors import InputError, Internal, InvalidBackground, MaskdropError, SourceError, UnknownEngine
from maskdrop.job import Result, Source
from maskdrop.options import Options
from maskdrop.output import BackgroundImage, Output
from maskdrop.prompt import Prompt
from maskdrop.wire import Item, Outcome, Overflow
from sagemaker_model.cutout import Begun, Cutout, Read, Timings, Write, begin, cut_out, end
from sagemaker_model.engines.base import BatchedEngine, Engine, Prepared
from sagemaker_model.imaging.pixels import decode, encode
from sagemaker_model.serving.batcher import Batcher
from sagemaker_model.serving.bundle import Place, put_aside, read_source
from sagemaker_model.serving.metrics import Metrics
from sagemaker_model.serving.storage import Storage
from sagemaker_model.serving.workers import Workers
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


def in_flight(workers: int) -> int:
    """Images of bundles whose bytes are held at once: one in work and one ready for each worker, two under way."""
    return 2 * workers + 2


class Runtime:
    """What works images, however they come. Made inside the running event loop."""

    def __init__(self, settings: ServerSettings, engines: Mapping[str, Engine], storage: Storage) -> None:
        self._settings = settings
        self._engines = engines
        self._storage = storage
        self._workers = Workers(settings.workers, settings.deadline_s)
        self._places = asyncio.Semaphore(in_flight(settings.workers))
        self._io = ThreadPoolExecutor(in_flight(settings.workers), thread_name_prefix="s3")
        self.metrics = Metrics(settings.device)
        self._batcher = Batcher(settings.batch_max, settings.deadline_s, self.metrics.batch)
        self._warm = False

    async def warm_up(self) -> None:
        """Sends one image through every engine and every worker; on a GPU, every size of batch before it."""
        picture = encode(np.full((64, 64, 3), 128, np.uint8), np.full((64, 64), 255, np.uint8), Output(), None, {})
        for name, engine in self._engines.items():
            if self._on_gpu(engine):
                await asyncio.to_thread(engine.warm_up, self._settings.batch_max)  # no deadline: it takes what it takes
            box = (Prompt((8, 8, 56, 56)),) if "box" in catalog.engine(name).prompts else ()
            cut_out = partial(self.cut_out, picture, Options(engine=name, prompts=box))
            await asyncio.gather(*(cut_out() for _ in range(self._workers.count)))
        self._warm = True
        log.info(
            "ready on device %s: %s; %d workers", self._settings.device, ", ".join(self._engines), self._workers.count
        )

    def close(self) -> None:
        self._workers.close()
        self._batcher.close()
        self._io.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether one image has gone through every engine, and nothing is stuck."""
        return self._warm and not self.stuck

    @property
    def stuck(self) -> int:
        """Threads of the workers, and batches on the device, that outlived their deadline and have not come back."""
        return self._workers.stuck + self._batcher.stuck

    async def cut_out(self, data: bytes, options: Options, read: Read = decode, write: Write = encode) -> Cutout:
        """On the CPU a worker does it all. For a GPU, a worker prepares and another finishes, and between the two the
        image shares a batch."""
        engine, limits = self._engine(options.engine), self._settings.limits
        background = await self._background(options)
        if not self._on_gpu(engine):
            return await self._workers.run(partial(cut_out, data, options, engine, limits, read, write, background))

        def before() -> tuple[Begun, Prepared]:
            begun = begin(data, options, limits, read)
            with begun.timings.stage("prepare"):
                return begun, engine.prepare(begun.picture.rgb, begun.prompts)

        def after() -> Cutout:
            with begun.timings.stage("finish"):
                predicted = engine.finish(output, begun.picture.rgb, begun.prompts)
            return end(begun, predicted, engine, limits, write, background)

        begun, prepared = await self._workers.run(before)
        with begun.timings.stage("predict"):
            output = await self._batcher.infer(options.engine, engine, prepared)
        return await self._workers.run(after)

    async def _background(self, options: Options) -> bytes:
        """The file of the image that goes behind the subject, b"" where none does. Raises InvalidBackground."""
        image = options.output.background
        if not isinstance(image, BackgroundImage):
            return b""
        try:
            return await self.in_io(
                partial(read_source, Source(image.bucket, image.key), self._storage, self._settings.limits)
            )
        except (InputError, SourceError) as error:
            raise InvalidBackground(f"The background image cannot be used. {error}", "background") from error

    async def put_aside(self, cutout: Cutout, overflow: Overflow) -> Result:
        """Writes the result of one image that is too large for its answer. Raises StorageUnavailable, NotAllowed."""
        return await self.in_io(partial(put_aside, cutout, overflow, self._storage))

    async def item(self, item: Item) -> Outcome:
        """The outcome of one image, whatever happens: one bad image never harms its bundle."""
        timings = Timings()
        try:
            async with self._places:
                outcome = await self._work(item, timings)
        except Exception as error:  # the rim of an image
            known = known_error(error)
            if isinstance(known, Internal):
                log.exception("job %s failed", item.id)
            outcome = Outcome(item.id, item.options.engine, timings=timings.ms, error=known.info)
        self.metrics.count(outcome)
        return outcome

    async def _work(self, item: Item, timings: Timings) -> Outcome:
        place = Place(item, self._storage)
        if done := await self.in_io(place.look):
            return done
        with timings.stage("read"):
            data = await self.in_io(partial(read_source, item.source, self._storage, self._settings.limits))
        cutout = await self.cut_out(data, item.options)
        timings.ms.update(cutout.timings)
        with timings.stage("write"):
            outcome = await self.in_io(partial(place.write, cutout))
        outcome.timings.update(timings.ms)
        return outcome

    def _engine(self, name: str) -> Engine:
        """Raises UnknownEngine: the catalogue has it, but it is not installed here."""
        try:
            return self._engines[name]
        except KeyError:
            there = ", ".join(sorted(self._engines))
            raise UnknownEngine(f"The engine {name!r} is not installed on this server; it has: {there}.") from None

    def _on_gpu(self, engine: Engine) -> TypeGuard[BatchedEngine]:
        return self._settings.device == "cuda" and isinstance(engine, BatchedEngine)

    async def in_io(self, work: Callable[[], T]) -> T:
        """What `work`, which waits for AWS, returns or raises; in one of `in_flight` threads."""
        return await asyncio.get_running_loop().run_in_executor(self._io, work)


def known_error(error: Exception) -> MaskdropError:
    """`error` if it is one of ours; anything else is a fault of the server, about which the caller learns nothing."""
    return error if isinstance(error, MaskdropError) else Internal("The model server failed on this image.")
