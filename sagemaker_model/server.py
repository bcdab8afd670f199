"""The model server.

    GET  /ping         200 once the weights are loaded and one picture has gone through each engine; 503 while a worker
                       is stuck, so that the instance is replaced.
    POST /invocations  a JSON bundle: its answer, one outcome an item (maskdrop/wire.py).
                       An image: its result, the options in the header X-Amzn-SageMaker-Custom-Attributes, which comes
                       back with what was found; or, where those say so and it is too large, {"result": {…}} and the
                       file in S3. Errors are {"error": {code, message, retryable}} with their status.
                       Either way application/x-npy (arrays.py) takes the file's place: as Content-Type, as Accept.
    GET  /metrics      Prometheus.

One process. Pixels are worked by as many threads as there are cores; S3 is read and written by threads of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeGuard, TypeVar

import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maskdrop import catalog
from maskdrop.errors import (
    FileTooLarge,
    InputError,
    Internal,
    InvalidBackground,
    MaskdropError,
    QueueFull,
    SourceError,
    UnknownEngine,
    UnsupportedFormat,
)
from maskdrop.job import Source
from maskdrop.options import Options
from maskdrop.output import CONTENT_TYPE, BackgroundImage, Output
from maskdrop.prompt import Prompt
from maskdrop.wire import CUSTOM_ATTRIBUTES, Answer, Bundle, Facts, Invocation, Item, Outcome
from sagemaker_model import arrays
from sagemaker_model.batcher import Batcher
from sagemaker_model.bundle import Place, put_aside, read_source
from sagemaker_model.cutout import Begun, Cutout, Read, Timings, Write, begin, cut_out, end
from sagemaker_model.engines.base import BatchedEngine, Engine, Prepared
from sagemaker_model.metrics import CONTENT_TYPE as METRICS_TYPE
from sagemaker_model.metrics import Metrics
from sagemaker_model.pixels import decode, encode
from sagemaker_model.settings import ServerSettings
from sagemaker_model.storage import Storage
from sagemaker_model.workers import Admission, Workers

log = logging.getLogger(__name__)

T = TypeVar("T")

BUNDLE_BYTES_MAX = 4 * 1024 * 1024
"""Of a bundle's JSON: 64 items with the longest keys that S3 allows, in both buckets, take about 200 kB; with a
thousand points each, of 17 digits, 3 MB more."""

RETRY_AFTER_S = 5
"""What a refused client is told to wait: some ten pictures' work on one core."""


def in_flight(workers: int) -> int:
    """Pictures of bundles whose bytes are held at once: one in work and one ready for each worker, two under way."""
    return 2 * workers + 2


class ModelServer:
    """What the routes share. Made inside the running event loop."""

    def __init__(self, settings: ServerSettings, engines: Mapping[str, Engine], storage: Callable[[], Storage]) -> None:
        self._settings = settings
        self._engines = engines
        self._storage = storage()
        self._workers = Workers(settings.workers, settings.deadline_s)
        self._admission = Admission(settings.queue_max, settings.queue_bytes)
        self._places = asyncio.Semaphore(in_flight(settings.workers))
        self._io = ThreadPoolExecutor(in_flight(settings.workers), thread_name_prefix="s3")
        self._metrics = Metrics(settings.device)
        self._batcher = Batcher(settings.batch_max, settings.deadline_s, self._metrics.batch)
        self._warm = False

    async def warm_up(self) -> None:
        """Sends one picture through every engine and every worker; on a GPU, every size of batch before it."""
        picture = encode(np.full((64, 64, 3), 128, np.uint8), np.full((64, 64), 255, np.uint8), Output(), None, {})
        for name, engine in self._engines.items():
            if self._on_gpu(engine):
                await asyncio.to_thread(engine.warm_up, self._settings.batch_max)  # no deadline: it takes what it takes
            box = (Prompt((8, 8, 56, 56)),) if "box" in catalog.engine(name).prompts else ()
            cut_out = partial(self._cut_out, picture, Options(engine=name, prompts=box))
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
    def _stuck(self) -> int:
        return self._workers.stuck + self._batcher.stuck

    async def ping(self, _: Request) -> Response:
        return Response(status_code=200 if self._warm and not self._stuck else 503)

    async def metrics(self, _: Request) -> Response:
        page = self._metrics.page(queued=self._admission.pictures, stuck=self._stuck)
        return Response(page, media_type=METRICS_TYPE)

    async def invocations(self, request: Request) -> Response:
        kind = _media_types(request.headers.get("content-type", ""))[0]
        if kind == "application/json":
            return await self._bundle(request)
        if kind == arrays.CONTENT_TYPE:
            return await self._picture(request, arrays.bytes_max(self._settings.limits), arrays.read_array)
        if kind.startswith("image/") or kind == "application/octet-stream":
            return await self._picture(request, self._settings.max_bytes, decode)
        raise UnsupportedFormat(
            "Send a bundle as application/json, a picture as image/* or application/octet-stream, or its pixels as "
            f"{arrays.CONTENT_TYPE}."
        )

    async def _cut_out(self, data: bytes, options: Options, read: Read = decode, write: Write = encode) -> Cutout:
        """On the CPU a worker does it all. For a GPU, a worker prepares and another finishes, and between the two the
        picture shares a batch."""
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
            return await self._in_io(
                partial(read_source, Source(image.bucket, image.key), self._storage, self._settings.limits)
            )
        except (InputError, SourceError) as error:
            raise InvalidBackground(f"The background image cannot be used. {error}", "background") from error

    # One picture

    async def _picture(self, request: Request, limit: int, read: Read) -> Response:
        """`limit`: bytes of the body."""
        size = _announced(request, limit)
        asked = Invocation.from_header(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        options, overflow = asked.options, asked.overflow
        as_array = arrays.CONTENT_TYPE in _media_types(request.headers.get("accept", ""))
        with self._admission.admit(1, limit if size is None else size):
            data = await _body(request, limit)
            try:
                cutout = await self._cut_out(data, options, read, arrays.write_array if as_array else encode)
                too_large = overflow and not as_array and len(cutout.data) > overflow.bytes_max
                result = await self._in_io(partial(put_aside, cutout, overflow, self._storage)) if too_large else None
            except Exception as error:
                self._metrics.count(Outcome("", options.engine, error=_known(error).info))
                raise
        found = Outcome("", options.engine, subject=cutout.subject, warnings=cutout.warnings, timings=cutout.timings)
        self._metrics.count(found)
        facts = Facts(
            engine=options.engine,
            device=self._settings.device,
            width=cutout.width,
            height=cutout.height,
            full=cutout.full,
            subject=cutout.subject,
            place=cutout.place,
            warnings=cutout.warnings,
            timings=cutout.timings,
        )
        headers = {CUSTOM_ATTRIBUTES: facts.to_header()}
        if result:
            return JSONResponse({"result": result.to_json()}, headers=headers)
        media_type = arrays.CONTENT_TYPE if as_array else CONTENT_TYPE[cutout.format]
        return Response(cutout.data, media_type=media_type, headers=headers)

    # A bundle

    async def _bundle(self, request: Request) -> Response:
        start = time.perf_counter()
        _announced(request, BUNDLE_BYTES_MAX)
        bundle = Bundle.from_bytes(await _body(request, BUNDLE_BYTES_MAX))
        with self._admission.admit(len(bundle.items)):
            outcomes = await asyncio.gather(*(self._item(item) for item in bundle.items))
        answer = Answer(
            bundle=bundle.id,
            device=self._settings.device,
            wall_ms=(time.perf_counter() - start) * 1000,
            usd_per_hour=self._settings.usd_per_hour,
            outcomes=tuple(outcomes),
        )
        failed = sum(outcome.error is not None for outcome in outcomes)
        log.info("bundle %s: %d pictures, %d failed, %.0f ms", bundle.id, len(outcomes), failed, answer.wall_ms)
        return Response(answer.to_bytes(), media_type="application/json")

    async def _item(self, item: Item) -> Outcome:
        """The outcome of one picture, whatever happens: one bad picture never harms its bundle."""
        timings = Timings()
        try:
            async with self._places:
                outcome = await self._work(item, timings)
        except Exception as error:  # the rim of a picture
            known = _known(error)
            if isinstance(known, Internal):
                log.exception("job %s failed", item.id)
            outcome = Outcome(item.id, item.options.engine, timings=timings.ms, error=known.info)
        self._metrics.count(outcome)
        return outcome

    async def _work(self, item: Item, timings: Timings) -> Outcome:
        place = Place(item, self._storage)
        if done := await self._in_io(place.look):
            return done
        with timings.stage("read"):
            data = await self._in_io(partial(read_source, item.source, self._storage, self._settings.limits))
        cutout = await self._cut_out(data, item.options)
        timings.ms.update(cutout.timings)
        with timings.stage("write"):
            outcome = await self._in_io(partial(place.write, cutout))
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

    async def _in_io(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._io, work)


def app(settings: ServerSettings, engines: Mapping[str, Engine], storage: Callable[[], Storage]) -> Starlette:
    """The server as an ASGI app. `storage` is called once, when it starts."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        server = ModelServer(settings, engines, storage)
        application.state.server = server
        await server.warm_up()
        yield
        server.close()

    def endpoint(name: str) -> Callable[[Request], Awaitable[Response]]:
        async def call(request: Request) -> Response:
            try:
                return await getattr(request.app.state.server, name)(request)
            except ClientDisconnect:
                return Response(status_code=400)  # nobody reads it
            except Exception as error:  # noqa: BLE001 - the rim of a request; `_refuse` logs what is not known
                return _refuse(error)

        return call

    return Starlette(
        routes=[
            Route("/ping", endpoint("ping"), methods=["GET"]),
            Route("/metrics", endpoint("metrics"), methods=["GET"]),
            Route("/invocations", endpoint("invocations"), methods=["POST"]),
        ],
        lifespan=lifespan,
    )


def _refuse(error: Exception) -> Response:
    known = _known(error)
    if isinstance(known, Internal):
        log.error("a request failed", exc_info=error)
    headers = {}
    if isinstance(known, QueueFull):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(known, FileTooLarge):
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": known.info.to_json()}, known.status, headers)


def _known(error: Exception) -> MaskdropError:
    """`error` if it is one of ours; anything else is a fault of the server, about which the caller learns nothing."""
    return error if isinstance(error, MaskdropError) else Internal("The model server failed on this picture.")


def _media_types(header: str) -> list[str]:
    """Those that a header lists, without their parameters."""
    return [part.partition(";")[0].strip().lower() for part in header.split(",")]


def _announced(request: Request, limit: int) -> int | None:
    """The body's length by its header, None when it comes in chunks. Raises FileTooLarge before any of it is read."""
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        return None
    if int(text) > limit:
        raise FileTooLarge(_TOO_LARGE.format(limit / 2**20))
    return int(text)


async def _body(request: Request, limit: int) -> bytes:
    """Raises FileTooLarge at the first byte too many."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > limit:
            raise FileTooLarge(_TOO_LARGE.format(limit / 2**20))
    return bytes(body)


_TOO_LARGE = "The body is too large: at most {:.3g} MiB are taken."
