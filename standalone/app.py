"""The ASGI app of `maskdrop serve`.

GET  /ping         200 while the engines are ready, else 503. No key.
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
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from lambdas.adapters.editors.local import LocalEditor
from lambdas.adapters.fetch import PublicWeb
from lambdas.http.forms import parts_of
from maskdrop.access import OPEN_PATHS
from maskdrop.errors import AuthFailed, FileTooLarge, Internal, MaskdropError
from maskdrop.options import REFINER
from maskdrop.presets import Presets
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
        path, start = request.url.path, time.perf_counter()
        try:
            if path in OPEN_PATHS:
                response = await self._handle(request, b"", None)  # never behind images
            else:
                with self.admission.admit(1, _body_bytes(request, self.settings.body_bytes)):
                    body = await self._body(request)
                    response = await self._handle(request, body, self.threads)
        except MaskdropError as error:
            response = self.gateway.error(error, path)
            if isinstance(error, FileTooLarge | BodyTimeout):
                response.headers.append(("Connection", "close"))  # the rest of the body is not read
        except ClientDisconnect:
            return Response(status_code=400)  # the client has disconnected and reads no response
        except Exception:  # the boundary of a request
            log.exception("a request failed")
            response = self.gateway.error(Internal("The server failed on this request."), path)
        self.metrics.count(path, request.method, response.status, time.perf_counter() - start)
        return _to_starlette(response)

    async def _handle(self, request: Request, body: bytes, threads: ThreadPoolExecutor | None) -> HttpResponse:
        """Calls the handlers in one of `threads`, where they wait for the image. None: the event loop's own threads."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
        query = request.scope["query_string"].decode("latin-1")
        call = HttpRequest(request.method, request.url.path, query, headers, body)
        return await asyncio.get_running_loop().run_in_executor(threads, self.gateway.respond, call)

    async def _body(self, request: Request) -> bytes:
        """Raises FileTooLarge as soon as the body exceeds the limit, and BodyTimeout."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.body_s):
                async for part in request.stream():
                    parts.append(part)
                    size += len(part)
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
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.scope["headers"]]
        caller = self.gateway.authorizer(HttpRequest("GET", "/metrics", "", headers, b""))
        if caller.get("scope") != "all":
            error = AuthFailed("The metrics require an API key of scope all: Authorization: Bearer.")
            return _to_starlette(self.gateway.error(error, "/metrics"))
        text = self.runtime.metrics.render(queued=self.admission.images, stuck=self.runtime.stuck)
        return Response(text + self.metrics.render(), media_type=METRICS_TYPE)

    async def file(self, request: Request) -> Response:
        """Responds with a stored file to its signed URL."""
        bucket, key, query = request.path_params["bucket"], request.path_params["key"], request.query_params
        linked = partial(self.storage.linked, bucket, key, query.get("expires", ""), query.get("signature", ""))
        try:
            body, content_type = await asyncio.to_thread(linked)
        except MaskdropError as error:
            return _to_starlette(self.gateway.error(error, FILES_PATH))
        return Response(body, media_type=content_type, headers={"Cache-Control": "private", **SAFE})

    async def upload(self, request: Request) -> Response:
        """Stores the file of a form that POST /v1/uploads returned."""
        try:
            with self.admission.admit(1, _body_bytes(request, self.settings.body_bytes)):
                parts = parts_of(await self._body(request), request.headers.get("content-type", ""))
                body = parts.pop("file", b"")
                fields = {name: part.decode(errors="replace") for name, part in parts.items()}
                store = partial(self.storage.store_upload, request.path_params["bucket"], fields, body)
                await asyncio.to_thread(store)
        except MaskdropError as error:
            return _to_starlette(self.gateway.error(error, FILES_PATH))
        return Response(status_code=204)


SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}
"""Headers of stored files: a browser shows them as their type, and runs nothing in them."""


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
        await runtime.warm_up()
        handlers.resume()
        cleaner = asyncio.create_task(_clean(settings, files, registry, jobs_table))
        yield
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
        routes.extend(console.routes(folder))
    application = Starlette(routes=routes, lifespan=lifespan)
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
        files.delete_older(kept.total_seconds())
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


def _body_bytes(request: Request, bytes_max: int) -> int:
    """Returns the size of the body from its headers; that of the largest body for a chunked one.

    Raises FileTooLarge before any byte is read.
    """
    if "transfer-encoding" in request.headers:
        return bytes_max
    length = int(request.headers.get("content-length", 0))  # the parser of HTTP accepts digits only
    if length > bytes_max:
        raise _too_large(bytes_max)
    return length


def _too_large(bytes_max: int) -> FileTooLarge:
    return FileTooLarge(f"The body of the request is too large: at most {bytes_max:,} bytes.")
