"""The model server.

    GET  /ping         200 after the weights are loaded and one image has passed through each engine; 503 while a worker
                       is stuck, so that SageMaker replaces the instance.
    POST /invocations  A JSON bundle: the response has one outcome for each item (maskdrop/wire.py).
                       The JSON of an older system, an image with a box: the response is its mask (predecessor.py).
                       An image: the response is its result. The header X-Amzn-SageMaker-Custom-Attributes of the
                       request holds the options; in the response it holds facts about the result. If the request names
                       an overflow and the result is larger than its limit, the result is written to S3 and the response
                       is {"result": {…}}. Errors are {"error": {code, message, retryable}} with their HTTP status. An
                       image or result may also be application/x-npy (arrays.py), by Content-Type and Accept.
    GET  /metrics      Metrics for Prometheus.

runtime.py processes the images.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from maskdrop.errors import FileTooLarge, Internal, InvalidOptions, QueueFull, UnsupportedFormat
from maskdrop.options import Options
from maskdrop.predecessor import is_request, parse
from maskdrop.wire import CUSTOM_ATTRIBUTES, Bundle, BundleResponse, Facts, Invocation, Outcome
from sagemaker_model.cutout import Cutout, ImageReader
from sagemaker_model.detectors.base import Detector
from sagemaker_model.engines.base import Engine
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.imaging import arrays
from sagemaker_model.imaging.encode import encode
from sagemaker_model.serving import predecessor
from sagemaker_model.serving.metrics import CONTENT_TYPE as METRICS_TYPE
from sagemaker_model.serving.runtime import Runtime, known_error
from sagemaker_model.serving.storage import Storage
from sagemaker_model.serving.workers import Admission
from sagemaker_model.settings import ServerSettings

log = logging.getLogger(__name__)

BUNDLE_BYTES_MAX = 4 * 1024 * 1024
"""Bytes of a bundle's JSON: 64 items with the longest keys that S3 allows, in both buckets, take about 200 kB; a
thousand points each, of 17 digits, take 3 MB more."""

JSON_BYTES = 1024
"""Bytes of the JSON around an image in base64."""

RETRY_AFTER_S = 5
"""The `Retry-After` of a full server: the time for about ten images on one core."""

Handler = Callable[[Request], Awaitable[Response]]


class ModelServer:
    """The routes and their admission control. Must be created inside the running event loop."""

    def __init__(self, settings: ServerSettings, runtime: Runtime) -> None:
        self._settings = settings
        self._runtime = runtime
        self._admission = Admission(settings.queue_max, settings.queue_bytes)

    async def ping(self, _: Request) -> Response:
        return Response(status_code=200 if self._runtime.ready else 503)

    async def metrics(self, _: Request) -> Response:
        text = self._runtime.metrics.render(queued=self._admission.images, stuck=self._runtime.stuck)
        return Response(text, media_type=METRICS_TYPE)

    async def invocations(self, request: Request) -> Response:
        media_type = _media_types(request.headers.get("content-type", ""))[0]
        if media_type == "application/json":
            return await self._process_json(request)
        if media_type == arrays.CONTENT_TYPE:
            return await self._process_image(request, arrays.bytes_max(self._settings.limits), arrays.read_array)
        if media_type.startswith("image/") or media_type == "application/octet-stream":
            return await self._process_image(request, self._settings.max_bytes, None)
        raise UnsupportedFormat(
            f"The Content-Type {media_type!r} is not supported: send a bundle as application/json, an image as image/* "
            f"or application/octet-stream, or its pixels as {arrays.CONTENT_TYPE}."
        )

    # One image

    async def _process_image(self, request: Request, bytes_max: int, read: ImageReader | None) -> Response:
        """Responds to one image of at most `bytes_max` bytes with its result."""
        size = _content_length(request, bytes_max)
        invocation = Invocation.from_header(request.headers.get(CUSTOM_ATTRIBUTES, ""))
        as_array = arrays.CONTENT_TYPE in _media_types(request.headers.get("accept", ""))
        with self._admission.admit(1, bytes_max if size is None else size):
            data = await _read_body(request, bytes_max)
            try:
                cutout = await self._runtime.cut_out(
                    data, invocation.options, read, arrays.write_array if as_array else encode
                )
                response = await self._image_response(cutout, invocation, as_array=as_array)
            except Exception as error:
                self._runtime.metrics.count(Outcome("", invocation.options.engine, error=known_error(error).info))
                raise
        self._runtime.metrics.count(
            Outcome(
                "",
                invocation.options.engine,
                subject=cutout.subject,
                warnings=cutout.warnings,
                timings=cutout.timings,
            )
        )
        return response

    async def _image_response(self, cutout: Cutout, invocation: Invocation, *, as_array: bool) -> Response:
        """Returns the response with the result, or with its place in S3 if it is larger than the overflow's limit.

        Several results are always written there. Raises InvalidOptions where the request names no overflow.
        """
        headers = {CUSTOM_ATTRIBUTES: self._facts(cutout, invocation.options).to_header()}
        overflow = invocation.overflow
        if cutout.parts and overflow is None:
            raise InvalidOptions("Several results need an overflow: the S3 location that they are written to.")
        if overflow and not as_array and (cutout.parts or len(cutout.data) > overflow.bytes_max):
            result, results = await self._runtime.write_overflow(cutout, overflow)
            body = {"result": result.to_json(), "results": [one.to_json() for one in results]}
            return JSONResponse(body, headers=headers)
        media_type = arrays.CONTENT_TYPE if as_array else cutout.content_type
        return Response(cutout.data, media_type=media_type, headers=headers)

    def _facts(self, cutout: Cutout, options: Options) -> Facts:
        return Facts(
            engine=cutout.engine or options.engine,
            device=self._settings.device,
            width=cutout.width,
            height=cutout.height,
            full=cutout.full_size,
            subject=cutout.subject,
            place=cutout.box_in_result,
            warnings=cutout.warnings,
            timings=cutout.timings,
        )

    # JSON

    async def _process_json(self, request: Request) -> Response:
        """Responds to a bundle, or to the request of an older system."""
        bytes_max = max(BUNDLE_BYTES_MAX, 4 * self._settings.max_bytes // 3 + JSON_BYTES)
        size = _content_length(request, bytes_max)
        with self._admission.admit(0, bytes_max if size is None else size):
            body = await _read_body(request, bytes_max)
        data = _object(body)
        if is_request(data):
            return await self._process_predecessor(data)
        return await self._process_bundle(body)

    async def _process_predecessor(self, data: Mapping[str, Any]) -> Response:
        image, options = parse(data)
        with self._admission.admit(1, len(image)):
            cutout = await self._runtime.cut_out(image, options, write=predecessor.write_mask)
        return Response(predecessor.response(cutout.data), media_type="application/json")

    async def _process_bundle(self, body: bytes) -> Response:
        start = time.perf_counter()
        if len(body) > BUNDLE_BYTES_MAX:
            raise _too_large(BUNDLE_BYTES_MAX)
        bundle = Bundle.from_bytes(body)
        with self._admission.admit(len(bundle.items)):
            await self._runtime.mark_started(bundle)
            outcomes = await asyncio.gather(*(self._runtime.process(item) for item in bundle.items))
        wall_ms = (time.perf_counter() - start) * 1000
        failed = sum(outcome.error is not None for outcome in outcomes)
        traces = " ".join(item.trace_id for item in bundle.items)
        log.info(
            "bundle %s: %d images, %d failed, %.0f ms, traces %s", bundle.id, len(outcomes), failed, wall_ms, traces
        )
        response = BundleResponse(
            bundle=bundle.id,
            device=self._settings.device,
            wall_ms=wall_ms,
            usd_per_hour=self._settings.usd_per_hour,
            outcomes=tuple(outcomes),
        )
        return Response(response.to_bytes(), media_type="application/json")


def create_app(
    settings: ServerSettings,
    engines: Mapping[str, Engine],
    storage: Callable[[], Storage],
    detectors: Mapping[str, Detector] | None = None,
    refiner: Refiner | None = None,
) -> Starlette:
    """Returns the server as an ASGI app. `storage` is called once, when the app starts."""

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        runtime = Runtime(settings, engines, storage(), detectors, refiner)
        application.state.server = ModelServer(settings, runtime)
        await runtime.warm_up()
        yield
        runtime.close()

    return Starlette(
        routes=[
            Route("/ping", _endpoint("ping"), methods=["GET"]),
            Route("/metrics", _endpoint("metrics"), methods=["GET"]),
            Route("/invocations", _endpoint("invocations"), methods=["POST"]),
        ],
        lifespan=lifespan,
    )


def _endpoint(method: str) -> Handler:
    """Returns a handler that calls this method of the app's ModelServer and converts errors to responses."""

    async def handle(request: Request) -> Response:
        handler: Handler = getattr(request.app.state.server, method)
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=400)  # the client has disconnected and reads no response
        except Exception as error:  # noqa: BLE001 - the boundary of a request; `_error_response` logs unknown errors
            return _error_response(error)

    return handle


def _error_response(error: Exception) -> Response:
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
    """Returns the media types of a header, without their parameters."""
    return [part.partition(";")[0].strip().lower() for part in header.split(",")]


def _content_length(request: Request, bytes_max: int) -> int | None:
    """Returns the Content-Length, None for a chunked body. Raises FileTooLarge before any byte is read."""
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        return None
    if int(text) > bytes_max:
        raise _too_large(bytes_max)
    return int(text)


async def _read_body(request: Request, bytes_max: int) -> bytes:
    """Raises FileTooLarge as soon as the body exceeds `bytes_max`."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(body)


def _object(body: bytes) -> dict[str, Any]:
    """Raises InvalidOptions for a body that is not a JSON object."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidOptions("The body must be valid JSON.") from error
    if not isinstance(data, dict):
        raise InvalidOptions("The body must be a JSON object.")
    return data


def _too_large(bytes_max: int) -> FileTooLarge:
    return FileTooLarge(f"The body is too large: send at most {bytes_max / 2**20:.3g} MiB.")
