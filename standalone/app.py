"""The ASGI app of `maskdrop serve`.

GET  /ping         200 while the default engine is ready (on a GPU: all engines), else 503. No key.
GET  /metrics      Metrics for Prometheus. With a key of scope `all`, or without keys.
GET  /v1/files/…   Stored files, by the signed URLs of results; POST for the forms of POST /v1/uploads.
GET  /console/     The web console, where it is installed; / redirects to it, else to /v1/docs.
all others         The API and its dialects: lambdas/http/routes.py.

request ──► admission ──► thread: handlers of the API ──► event loop: Runtime ──► threads and decoder processes
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from lambdas.adapters.editors.local import LocalEditor
from lambdas.adapters.fetch import PublicWeb
from lambdas.http.forms import parts_of
from maskdrop.access import OPEN_PATHS
from maskdrop.catalog import DEFAULT_ENGINE
from maskdrop.console import FILE_HEADERS
from maskdrop.errors import AuthFailed, EndpointUnavailable, FileTooLarge, Internal, MaskdropError
from maskdrop.loopback import LocalOnly
from maskdrop.options import REFINER
from maskdrop.presets import Presets
from maskdrop.review import TRAINING_PREFIX
from maskdrop.services import Registry, Services
from maskdrop.ssrf import Policy
from sagemaker_model.detectors.base import Detector
from sagemaker_model.engines.base import Engine
from sagemaker_model.engines.vitmatte import Refiner
from sagemaker_model.serving.metrics import CONTENT_TYPE as METRICS_TYPE
from sagemaker_model.serving.runtime import Runtime
from sagemaker_model.serving.workers import Admission
from sagemaker_model.settings import ServerSettings
from standalone import console
from standalone.background import Background, Jobs, LocalQueue
from standalone.database import Database
from standalone.files import PATH as FILES_PATH
from standalone.files import ApiStorage, Files, ModelStorage, signing_secret
from standalone.gateway import Gateway, HttpRequest, HttpResponse
from standalone.jobs import SqliteJobs
from standalone.metrics import HttpMetrics
from standalone.pipeline import LocalEndpoint
from standalone.registry import SqliteRegistry, open_registry
from standalone.settings import ServeSettings

log = logging.getLogger(__name__)

CLEAN_S = 3600
"""Seconds between two deletions of expired files and records."""

JOBS_DRAIN_S = 5
"""Seconds in which jobs in progress may end after the last request. The next start continues the others."""


class BodyTimeout(MaskdropError):
    """The body of a request did not arrive in time."""

    code, status = "body_timeout", 408


@dataclass(frozen=True, slots=True)
class Server:
    """The running server: everything that the handlers of the app use."""

    settings: ServeSettings
    gateway: Gateway
    storage: ApiStorage
    runtime: Runtime
    admission: Admission
    threads: ThreadPoolExecutor
    metrics: HttpMetrics

    async def respond(self, request: Request) -> Response:
        """Responds to a request to the API. Only OPEN_PATHS are admitted while the server is full."""
        path, start = str(request.scope["path"]), time.perf_counter()
        response = await self._guarded(request, path, self._api(request))
        self.metrics.count(path, request.method, response.status, time.perf_counter() - start)
        return _to_starlette(response)

    async def _api(self, request: Request) -> HttpResponse:
        call, loop = _call_of(request), asyncio.get_running_loop()
        if call.path in OPEN_PATHS:  # never behind images
            return await loop.run_in_executor(None, self.gateway.respond, call, {})
        # Before the body: without a valid key no request takes a place, or memory.
        caller = await loop.run_in_executor(None, self.gateway.authorizer, call)
        if not caller:
            return await loop.run_in_executor(None, self.gateway.respond, call, caller)
        with self.admission.admit(1, _content_length(request, self.settings.body_bytes) or 0) as more:
            call = replace(call, body=await self._body(request, more))
            return await loop.run_in_executor(self.threads, self.gateway.respond, call, caller)

    async def _guarded(self, request: Request, path: str, responding: Awaitable[HttpResponse]) -> HttpResponse:
        """Returns the response, or that of an error. path: that of the API whose format an error has.

        After an error the rest of the body is read and discarded (`HttpProtocol`): many clients read no response before
        they have sent all of it. A client that waits for `100 Continue` sends none: its connection is closed.
        """
        response = await self._boundary(path, responding)
        if response.status >= 400 and "expect" in request.headers:
            response.headers.append(("Connection", "close"))
        return response

    async def _boundary(self, path: str, responding: Awaitable[HttpResponse]) -> HttpResponse:
        try:
            return await responding
        except MaskdropError as error:
            return self.gateway.error(error, path)
        except asyncio.CancelledError:  # the drain has ended
            return self.gateway.error(EndpointUnavailable("The server stops. Send the request again later."), path)
        except ClientDisconnect:
            return HttpResponse(400, [], b"")  # the client has disconnected and reads no response
        except Exception:
            log.exception("a request failed")
            return self.gateway.error(Internal("The server failed on this request."), path)

    async def _body(self, request: Request, more: Callable[[int], None]) -> bytes:
        """more: counts the bytes of a body without Content-Length.

        Raises FileTooLarge as soon as the body exceeds the limit, BodyTimeout, and QueueFull as `more` does.
        """
        parts, size, counted = [], 0, "content-length" in request.headers
        try:
            async with asyncio.timeout(self.settings.body_s):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
                    if not counted:
                        more(len(part))
                    if size > self.settings.body_bytes:
                        raise _too_large(self.settings.body_bytes)
        except TimeoutError as error:
            raise BodyTimeout(
                f"The body of the request did not arrive within {self.settings.body_s:g} s: {size:,} bytes were "
                "received. Send it again."
            ) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def ping(self, _: Request) -> Response:
        return Response(status_code=200 if self.runtime.ready else 503)

    async def render_metrics(self, request: Request) -> Response:
        caller = await asyncio.to_thread(self.gateway.authorizer, _call_of(request))
        if caller.get("scope") != "all":
            error = AuthFailed("The metrics require an API key of scope all: Authorization: Bearer.")
            return _to_starlette(self.gateway.error(error, "/metrics"))
        text = self.runtime.metrics.render(queued=self.admission.images, stuck=self.runtime.stuck)
        return Response(text + self.metrics.render(), media_type=METRICS_TYPE)

    async def file(self, request: Request) -> Response:
        """Responds with a stored file to its signed URL."""
        bucket, key, query = request.path_params["bucket"], request.path_params["key"], request.query_params
        linked = partial(self.storage.linked, bucket, key, query.get("expires", ""), query.get("signature", ""))

        async def stored() -> HttpResponse:
            body, content_type = await asyncio.to_thread(linked)
            headers = {"Content-Type": content_type, "Cache-Control": "private", **FILE_HEADERS}
            return HttpResponse(200, list(headers.items()), body)

        return _to_starlette(await self._guarded(request, FILES_PATH, stored()))

    async def upload(self, request: Request) -> Response:
        """Stores the file of a form that POST /v1/uploads returned."""
        return _to_starlette(await self._guarded(request, FILES_PATH, self._upload(request)))

    async def _upload(self, request: Request) -> HttpResponse:
        with self.admission.admit(1, _content_length(request, self.settings.body_bytes) or 0) as more:
            parts = parts_of(await self._body(request, more), request.headers.get("content-type", ""))
            body = parts.pop("file", b"")
            fields = {name: part.decode(errors="replace") for name, part in parts.items()}
            await asyncio.to_thread(self.storage.store_upload, request.path_params["bucket"], fields, body)
        return HttpResponse(204, [], b"")


def create_app(
    settings: ServeSettings,
    model: ServerSettings,
    engines: Mapping[str, Engine],
    detectors: Mapping[str, Detector] | None = None,
    refiner: Refiner | None = None,
) -> Starlette:
    """Returns the app. Raises InvalidSettings, TableUnavailable."""
    settings.check()
    database = Database(settings.data)
    registry, jobs_table = open_registry(settings.registry, database), SqliteJobs(database)
    files = Files(settings.data, database)
    storage = ApiStorage(files, signing_secret(settings.data), settings.url)
    installed = {*engines, *(detectors or {}), "labels", *([REFINER] if refiner else [])}
    api = replace(settings.to_api(), engines=" ".join(sorted(installed)))

    @asynccontextmanager
    async def lifespan(application: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        runtime = Runtime(model, engines, ModelStorage(files), detectors, refiner)
        background = Background(threads=model.workers + 2)
        handlers = Jobs(api, runtime, loop, background, model.device)
        jobs_queue, unused = LocalQueue(background, handlers.admit), LocalQueue(background, _refuse)
        handlers.services = Services(
            jobs=jobs_table,
            jobs_queue=jobs_queue,
            storage=storage,
            endpoint=handlers,
            events=handlers,
            registry=registry,
            interactive=LocalEndpoint(runtime, loop, model.device, settings.request_s),
            web=PublicWeb(Policy.of(api)),
            webhooks_queue=unused,
            bundles_queue=unused,
            results_queue=unused,
            edits_queue=LocalQueue(background, handlers.edit),
            serverless=_NoServerless(),
            editor=LocalEditor(),
            presets=Presets(partial(registry.list, "preset")),
        )
        application.state.server = Server(
            settings,
            Gateway(api, handlers.services, no_auth=settings.no_auth),
            storage,
            runtime,
            Admission(settings.requests_max, settings.requests_bytes),
            ThreadPoolExecutor(settings.requests_max, thread_name_prefix="api"),
            HttpMetrics(),
        )
        await runtime.warm_up(DEFAULT_ENGINE["cutout"])
        others = asyncio.create_task(runtime.warm_up_others())
        handlers.resume()
        cleaner = asyncio.create_task(_clean(settings, files, registry, jobs_table))
        yield
        others.cancel()
        cleaner.cancel()
        await background.close(JOBS_DRAIN_S)
        runtime.close()
        application.state.server.threads.shutdown(wait=False, cancel_futures=True)
        database.close()

    routes: list[BaseRoute] = [
        Route("/", _home, methods=["GET"]),
        Route("/ping", _call(Server.ping), methods=["GET"]),
        Route("/metrics", _call(Server.render_metrics), methods=["GET"]),
        Route(f"{FILES_PATH}/{{bucket}}/{{key:path}}", _call(Server.file), methods=["GET"]),
        Route(f"{FILES_PATH}/{{bucket}}", _call(Server.upload), methods=["POST"]),
    ]
    if folder := console.find_console():
        routes.extend(console.routes(folder, corrections_days=settings.keep_corrections_days))
    # Without keys, a page in a browser of this machine could use the server.
    guard = [Middleware(LocalOnly)] if settings.no_auth and not settings.anyone else []
    application = Starlette(routes=routes, lifespan=lifespan, middleware=guard)
    application.router.default = _api
    application.router.redirect_slashes = False  # the API has rules of its own
    return application


class _NoServerless:
    """`LocalQueue` needs no second endpoint: jobs are processed by `Jobs`."""

    def invoke(self, bundle: bytes) -> bytes:
        raise NotImplementedError


def _refuse(_: str) -> None:
    """Raises NotImplementedError: no handler sends messages to this queue."""
    raise NotImplementedError


async def _api(scope: Scope, receive: Receive, send: Send) -> None:
    """The app of all paths without a route."""
    if scope["type"] != "http":
        return
    response = await scope["app"].state.server.respond(Request(scope, receive))
    await response(scope, receive, send)


def _call(method: Callable[[Server, Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Returns an endpoint that calls this method of the app's server."""

    async def endpoint(request: Request) -> Response:
        return await method(request.app.state.server, request)

    return endpoint


async def _home(_: Request) -> Response:
    return RedirectResponse(f"{console.PATH}/" if console.find_console() else "/v1/docs")


async def _clean(settings: ServeSettings, files: Files, registry: Registry, jobs: SqliteJobs) -> None:
    """Deletes expired files and records every CLEAN_S seconds."""

    def clean() -> None:
        kept = timedelta(days=settings.keep_days)
        files.delete_older(kept.total_seconds(), TRAINING_PREFIX, others=True)
        files.delete_older(timedelta(days=settings.keep_corrections_days).total_seconds(), TRAINING_PREFIX)
        jobs.delete_finished(datetime.now(UTC) - kept)
        if isinstance(registry, SqliteRegistry):  # DynamoDB deletes expired items itself
            registry.delete_expired()

    while True:
        try:
            await asyncio.to_thread(clean)
        except MaskdropError as error:
            log.warning("expired files are deleted later: %s", error)
        await asyncio.sleep(CLEAN_S)


def _to_starlette(response: HttpResponse) -> Response:
    answer = Response(response.body, response.status)
    answer.raw_headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if response.status >= 200 and response.status not in (204, 304):
        answer.raw_headers.append((b"content-length", str(len(response.body)).encode()))
    return answer


def _call_of(request: Request) -> HttpRequest:
    """Returns a request without its body. HEAD is GET for the handlers: uvicorn omits the body of the response."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
    query = request.scope["query_string"].decode("latin-1")
    method = "GET" if request.method == "HEAD" else request.method
    return HttpRequest(method, request.scope["path"], query, headers, b"")


def _content_length(request: Request, bytes_max: int) -> int | None:
    """Returns the Content-Length, None for a chunked body. Raises FileTooLarge before any byte is read."""
    text = request.headers.get("content-length", "")
    if not text.isdecimal():
        return None
    if int(text) > bytes_max:
        raise _too_large(bytes_max)
    return int(text)


def _too_large(bytes_max: int) -> FileTooLarge:
    return FileTooLarge(f"The body of the request is too large: at most {bytes_max:,} bytes.")
