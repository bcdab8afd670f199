"""Processes images: from a request or an item of a bundle, through S3, threads and engines, to the result.

One process. As many threads as there are cores process pixels; separate threads read and write S3. Files are decoded in
processes of their own (decoding.py).
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
from maskdrop.background import BackgroundImage
from maskdrop.edit import EDITORS, EditorModel, alpha_key, candidate_key
from maskdrop.errors import InputError, Internal, InvalidBackground, MaskdropError, SourceError
from maskdrop.job import Result, ResultItem, Source
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompt
from maskdrop.wire import Bundle, Item, Outcome, Overflow
from sagemaker_model.cutout import (
    Cutout,
    CutoutRequest,
    ImageReader,
    ImageWriter,
    Segmenter,
    Timings,
    check_refinement,
    decode_image,
    render,
    with_targets,
)
from sagemaker_model.detectors.base import Detector
from sagemaker_model.detectors.labels import Labels
from sagemaker_model.engines.base import BatchedEngine, Engine, Prepared
from sagemaker_model.engines.sam import Sam
from sagemaker_model.engines.verification import SWITCHED_OFF, Comparison, EngineUnavailable
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.imaging.encode import encode
from sagemaker_model.installed import Installed
from sagemaker_model.serving.batcher import Batcher
from sagemaker_model.serving.bundle import ResultWriter, mark_started, read_source, write_overflow
from sagemaker_model.serving.decoding import Decoders
from sagemaker_model.serving.metrics import Metrics
from sagemaker_model.serving.storage import Storage
from sagemaker_model.serving.workers import Workers
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

T = TypeVar("T")


def in_flight_max(workers: int) -> int:
    """Returns the maximum number of images of bundles in memory.

    For each worker one in progress and one ready, and two that are read or written.
    """
    return 2 * workers + 2


def _grey_image() -> bytes:
    """Returns the file that warms an engine up."""
    return encode(np.full((64, 64, 3), 128, np.uint8), np.full((64, 64), 255, np.uint8), Output(), None, {})


class Runtime:
    """Processes images for the HTTP server and the queue worker. Must be created inside the running event loop.

    detectors: by name, as `load_detectors` returns them. refiner: ViTMatte, where it is installed.
    """

    def __init__(
        self,
        settings: ServerSettings,
        engines: Mapping[str, Engine],
        storage: Storage,
        detectors: Mapping[str, Detector] | None = None,
        refiner: Refiner | None = None,
    ) -> None:
        self._settings = settings
        self._installed = Installed(engines, {"labels": Labels(), **(detectors or {})}, refiner=refiner)
        self._storage = storage
        self._workers = Workers(settings.workers, settings.deadline_s, lendable=settings.workers)
        self._decoders = Decoders(
            settings.workers, settings.decode_s, settings.decode_bytes, settings.limits, self._workers.lend
        )
        self._in_flight = asyncio.Semaphore(in_flight_max(settings.workers))
        self._io = ThreadPoolExecutor(in_flight_max(settings.workers), thread_name_prefix="s3")
        self.metrics = Metrics(settings.device)
        self._batcher = Batcher(settings.batch_max, settings.deadline_s, self.metrics.batch)
        self._warm = False
        self._warmed: set[str] = set()

    async def warm_up(self, first: str | None = None) -> None:
        """Sends one image through every engine and every worker; on a GPU, first prepares and verifies its batches.

        An engine that returns NaN or infinity is unavailable from here on; the other engines are served. first: on the
        CPU, where engines need no preparation, only this engine if it is installed; `warm_up_others` follows.
        """
        if first is not None and first in self._installed.engines and self._settings.device == "cpu":
            await self._warm_up_engine(first, self._workers.count)
        else:
            for name in self._installed.engines:
                await self._warm_up_engine(name, self._workers.count)
            for name in self._installed.detectors:
                await self._warm_up_detector(name)
        self._warm = True
        available = ", ".join(name for name in self._installed.engines if name not in self._installed.unavailable)
        log.info("ready on device %s: %s; %d workers", self._settings.device, available, self._workers.count)

    async def warm_up_others(self) -> None:
        """Sends one image through each engine and detector that `warm_up` left out, one after the other beside the
        requests. One that fails is only logged: its requests get the same error."""
        for name in [*self._installed.engines, *self._installed.detectors]:
            if name in self._warmed:
                continue
            try:
                if name in self._installed.engines:
                    await self._warm_up_engine(name, 1)
                else:
                    await self._warm_up_detector(name)
            except Exception:  # the boundary of an engine
                log.exception("engine %s failed on its first image", name)

    async def _warm_up_engine(self, name: str, images: int) -> None:
        """Prepares an engine and sends this number of images through it at once."""
        self._warmed.add(name)
        try:
            comparisons = await self._prepare(self._installed.engines[name])
        except EngineUnavailable as error:
            log.error("engine %s %s: %s", SWITCHED_OFF, name, error)
            self._installed.unavailable[name] = error
            self.metrics.engine(name, None)
            return
        for one in comparisons:
            if one.passed:
                log.info("engine %s: %s is on: %s", name, one.optimisation, one)
            else:
                log.warning("optimisation %s %s of the engine %s: %s", SWITCHED_OFF, one.optimisation, name, one)
        self.metrics.engine(name, comparisons)
        box = (Prompt((8, 8, 56, 56)),) if "box" in catalog.engine(name).prompts else ()
        cut_out = partial(self.cut_out, _grey_image(), Options(engine=name, prompts=box))
        await asyncio.gather(*(cut_out() for _ in range(images)))

    async def _warm_up_detector(self, name: str) -> None:
        self._warmed.add(name)
        if not catalog.engine(name).paid:
            await self.cut_out(_grey_image(), Options(task="detect", engine=name))

    async def _prepare(self, engine: Engine) -> tuple[Comparison, ...]:
        """Prepares and verifies the batches of an engine on a GPU, without a deadline. Raises EngineUnavailable."""
        if not self._on_gpu(engine):
            return ()
        return await asyncio.to_thread(engine.warm_up, self._settings.batch_max)

    def close(self) -> None:
        self._workers.close()
        self._decoders.close()
        self._batcher.close()
        self._io.shutdown(wait=False, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether `warm_up` has ended, and no thread is stuck."""
        return self._warm and not self.stuck

    @property
    def stuck(self) -> int:
        """The number of workers and of batches on the device that have exceeded their deadline and still run."""
        return self._workers.stuck + self._batcher.stuck

    async def cut_out(
        self,
        data: bytes,
        options: Options,
        read: ImageReader | None = None,
        write: ImageWriter = encode,
        editor: EditorModel | None = None,
    ) -> Cutout:
        """Processes one image. read: None for a file, which a decoder process reads. editor: whose limits apply to the
        images of an edit.

        Raises what `detect_objects`, `decode_image`, `with_targets` and `render` raise, UnknownEngine and
        DeadlineExceeded. On the CPU one worker runs all steps. For a GPU, one worker prepares the image and another
        renders the results; in between the image shares a batch.
        """
        limits, run, installed = self._settings.limits, self._workers.run, self._installed
        read_file = self._decoders.decode
        read = read or read_file
        options = installed.resolved(options)
        name = options.engine
        detects = catalog.engine(name).returns == "boxes"
        engine = None if detects else installed.engine(name)  # an unknown engine is an error before S3 is read
        background = await self._background(options)
        if engine is None or not self._on_gpu(engine):
            return await run(
                partial(installed.process, data, options, limits, read, write, background, editor, read_file)
            )

        def prepare() -> tuple[CutoutRequest, Prepared | None]:
            check_refinement(options, installed.refiner)
            decoded = with_targets(decode_image(data, options, limits, read), installed.labels)
            with decoded.timings.stage("prepare"):
                return decoded, self._prepared(engine, decoded)

        def finish() -> Cutout:
            segmenter = Segmenter(
                lambda prompts: engine.finish(output, decoded.image.rgb, prompts),
                lambda size: engine.everything(output, size),  # type: ignore[attr-defined]
            )
            return render(decoded, segmenter, engine, limits, write, background, editor, installed.refiner, read_file)

        decoded, prepared = await run(prepare)
        with decoded.timings.stage("batch"):
            output = None if prepared is None else await self._batcher.infer(name, engine, prepared)
        return await run(finish)

    def _prepared(self, engine: BatchedEngine, decoded: CutoutRequest) -> Prepared | None:
        """Returns the network's input; None where no label of the prompts was found."""
        if decoded.targets.prompted:
            prompts = tuple(target.prompt for target in (*decoded.targets.keep, *decoded.targets.ignore))
            return engine.prepare(decoded.image.rgb, prompts) if decoded.targets.keep else None
        if isinstance(engine, Sam):  # the everything mode
            return engine.encoder_input(decoded.image.rgb)
        return engine.prepare(decoded.image.rgb, ())

    async def _background(self, options: Options) -> bytes:
        """Reads the background image's file from S3; b"" without a background image. Raises InvalidBackground."""
        image = options.output.background
        if not isinstance(image, BackgroundImage):
            return b""
        try:
            return await self.run_io(
                partial(read_source, Source(image.bucket, image.key), self._storage, self._settings.limits)
            )
        except (InputError, SourceError) as error:
            raise InvalidBackground(f"The background image cannot be used. {error}", "background") from error

    async def write_overflow(self, cutout: Cutout, overflow: Overflow) -> tuple[Result, tuple[ResultItem, ...]]:
        """Writes results that are too large or too many for their response to S3. Raises StorageUnavailable,
        NotAllowed."""
        return await self.run_io(partial(write_overflow, cutout, overflow, self._storage))

    async def mark_started(self, bundle: Bundle) -> None:
        """Marks a bundle as started. Without the mark a crash costs its images no attempt, which is no reason to reject
        the bundle: an error is only logged."""
        try:
            await self.run_io(partial(mark_started, bundle, self._storage))
        except MaskdropError as error:
            log.warning("bundle %s is processed without the mark that it has started: %s", bundle.id, error.message)

    async def process(self, item: Item) -> Outcome:
        """Processes one item of a bundle. Returns errors as its outcome, so that the other items go on."""
        timings = Timings()
        try:
            async with self._in_flight:
                outcome = await self._process(item, timings)
        except Exception as error:  # the boundary of an item
            known = known_error(error)
            if isinstance(known, Internal):
                log.exception("job %s failed", item.id)
            outcome = Outcome(item.id, item.options.engine, timings=timings.ms, error=known.info)
        self.metrics.count(outcome)
        return outcome

    async def _process(self, item: Item, timings: Timings) -> Outcome:
        writer = ResultWriter(item, self._storage)
        if existing := await self.run_io(writer.existing):
            return existing
        with timings.stage("read"):
            data = await self.run_io(partial(read_source, item.source, self._storage, self._settings.limits))
        cutout = await (self._compose(item, data) if item.stage == "compose" else self._segment(item, data))
        timings.ms.update(cutout.timings)
        with timings.stage("write"):
            outcome = await self.run_io(partial(writer.write, cutout))
        outcome.timings.update(timings.ms)
        return outcome

    async def _segment(self, item: Item, data: bytes) -> Cutout:
        return await self.cut_out(data, item.options, editor=EDITORS[item.editor])

    async def _compose(self, item: Item, data: bytes) -> Cutout:
        """Composes the candidates of an edit. Segments the image again where the stored alpha has expired."""
        limits = self._settings.limits

        async def stored(key: str) -> bytes:
            return await self.run_io(partial(read_source, Source(item.result.bucket, key), self._storage, limits))

        try:
            alpha = await stored(alpha_key(item.id))
        except SourceError:
            segmented = await self._segment(item, data)
            if segmented.edit is None:
                raise
            alpha = segmented.edit.alpha
        generated = [await stored(candidate_key(item.id, one.number)) for one in item.candidates]
        return await self._workers.run(
            partial(self._installed.compose, data, item.options, alpha, generated, limits, self._decoders.decode)
        )

    def _on_gpu(self, engine: Engine) -> TypeGuard[BatchedEngine]:
        return self._settings.device == "cuda" and isinstance(engine, BatchedEngine)

    async def run_io(self, call: Callable[[], T]) -> T:
        """Runs `call`, which waits for AWS, in one of `in_flight_max` threads, and returns its result."""
        return await asyncio.get_running_loop().run_in_executor(self._io, call)


def known_error(error: Exception) -> MaskdropError:
    """Returns `error` if it is a MaskdropError, else Internal, which hides the details from the caller."""
    return error if isinstance(error, MaskdropError) else Internal("The model server failed on this image.")
