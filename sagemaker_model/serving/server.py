"""The model server.

    GET  /ping         200 once the weights are loaded and one image has gone through each engine; 503 while a worker
                       is stuck, so that the instance is replaced.
    POST /invocations  a JSON bundle: its answer, one outcome an item (maskdrop/wire.py).
                       An image: its result, the options in the header X-Amzn-SageMaker-Custom-Attributes, which comes
                       back with what was found; or, where those say so and it is too large, {"result": {…}} and the
                       file in S3. Errors are {"error": {code, message, retryable}} with their status.
                       Either way application/x-npy (arrays.py) takes the file's place: as Content-Type, as Accept.
    GET  /metrics      Prometheus.

How an image is worked is in runtime.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maskdrop.errors import FileTooLarge, Internal, QueueFull, UnsupportedFormat
from maskdrop.output import CONTENT_TYPE
from maskdrop.wire import CUSTOM_ATTRIBUTES, Answer, Bundle, Facts, Invocation, Outcome
from sagemaker_model.cutout import Read
from sagemaker_model.engines.base import Engine
from sagemaker_model.imaging import arrays
from sagemaker_model.imaging.pixels import decode, encode
from sagemaker_model.serving.metrics import CONTENT_TYPE as METRICS_TYPE
from sagemaker_model.serving.runtime import Runtime, known_error
from sagemaker_model.serving.storage import Storage
from sagemaker_model.serving.workers import Admission
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

BUNDLE_BYTES_MAX = 4 * 1024 * 1024
"""Of a bundle's JSON: 64 items with the longest keys that S3 allows, in both buckets, take about 200 kB; with a
thousand points each, of 17 digits, 3 MB more."""

RETRY_AFTER_S = 5
"""What a refused client is told to wait: some ten images' work on one core."""


class ModelServer:
    """The routes, and how much may wait behind them. Made inside the running event loop."""

    def __init__(self, settings: ServerSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._admission = Admission(settings.queue_max, settings.queue_bytes)

    async def ping(self, _: Request) -> Response:
        return Response(status_code=200 if self._runtime.ready else 503)

    async def metrics(self, _: Request) -> Response:
        page = self._runtime.metrics.page(queued=self._admission.pictures, stuck=self._runtime.stuck)
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
            "Send a bundle as application/json, an image as image/* or application/octet-stream, or its pixels as "
            f"{arrays.CONTENT_TYPE}."
        )

    # One image

    async def _picture(self, request: Request, limit: int, read: Read) -> Response:
        """`limit`: bytes of the body."""
        size = _announced(request, limit)
        asked = Invocation.from_header(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        options, overflow = asked.options, asked.overflow
        as_array = arrays.CONTENT_TYPE in _media_types(request.headers.get("accept", ""))
        with self._admission.admit(1, limit if size is None else size):
            data = await _body(request, limit)
            try:
                cutout = await self._runtime.cut_out(data, options, read, arrays.write_array if as_array else encode)
                aside = overflow if overflow and not as_array and len(cutout.data) > overflow.bytes_max else None
                result = await self._runtime.put_aside(cutout, aside) if aside else None
            except Exception as error:
                self._runtime.metrics.count(Outcome("", options.engine, error=known_error(error).info))
                raise
        found = Outcome("", options.engine, subject=cutout.subject, warnings=cutout.warnings, timings=cutout.timings)
        self._runtime.metrics.count(found)
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
            outcomes = await asyncio.gather(*(self._runtime.item(item) for item in bundle.items))
        answer = Answer(
            bundle=bundle.id,
            device=self._settings.device,
            wall_ms=(time.perf_counter() - start) * 1000,
            usd_per_hour=self._settings.usd_per_hour,
            outcomes=tuple(outcomes),
        )
        failed = sum(outcome.error is not None for outcome in outcomes)
        log.info("bundle %s: %d images, %d failed, %.0f ms", bundle.id, len(outcomes), failed, answer.wall_ms)
        return Response(answer.to_bytes(), media_type="application/json")


def app(settings: ServerSettings, engines: Mapping[str, Engine], storage: Callable[[], Storage]) -> Starlette:
    """The server as an ASGI app. `storage` is called once, when it starts."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        runtime = Runtime(settings, engines, storage())
        application.state.server = ModelServer(settings, runtime)
        await runtime.warm_up()
        yield
        runtime.close()

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
    known = known_error(error)
    if isinstance(known, Internal):
        log.error("a request failed", exc_info=error)
    headers = {}
    if isinstance(known, QueueFull):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    if isinstance(known, FileTooLarge):
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse({"error": known.info.to_json()}, known.status, headers)


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
