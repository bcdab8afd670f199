"""The routes of the HTTP API behind API Gateway: /v1 and the vendor dialects.

Callers send an API key, or sign the request with AWS Signature Version 4 and prefix the path with /iam.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, CORSConfig, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.http import cutouts, jobs
from lambdas.http.dialects import airplanes, rembg, removebg, sam, withoutbg
from lambdas.http.openapi import CURSOR, MONTH, PAGE, PAGE_MAX, document, methods_at
from lambdas.http.page import compressed_page, page, policy
from lambdas.observe import logger
from maskdrop import __version__, trace
from maskdrop.access import IAM_PREFIX, MISSING_KEY, OPEN_PATHS, Caller, add_usage, count_call, usage_of
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, Task
from maskdrop.errors import (
    AuthFailed,
    InvalidOptions,
    InvalidPreset,
    JobNotFound,
    MaskdropError,
    MethodNotAllowed,
    NotFound,
    UnknownCursor,
)
from maskdrop.flow import remove, retry
from maskdrop.idempotency import IDEMPOTENCY_HEADER, once
from maskdrop.interactive import cut_out_now, runs_now
from maskdrop.job import STATES, Job, State
from maskdrop.presets import Presets
from maskdrop.services import Selection, Services
from maskdrop.settings import Settings
from maskdrop.slots import limited
from maskdrop.spending import check_quota
from maskdrop.trace import trace_id_of

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware

DIALECTS = (removebg, rembg, withoutbg, airplanes, sam)
ERROR_RESPONSES: dict[str, Callable[[MaskdropError], Response[Any]]] = {
    path: dialect.error_response for dialect in DIALECTS for path in dialect.PATHS
}

Resolver = TypeVar("Resolver", bound=APIGatewayRestResolver)

RETRY_AFTER_S = 5
"""Value of the `Retry-After` header of retryable errors, in seconds."""

FETCHING_PATHS = rembg.PATHS
"""Paths at which a GET processes an image."""

SAFE_HEADERS = {"Cache-Control": ["no-store"], "X-Content-Type-Options": ["nosniff"]}
"""Headers of every response: no cache keeps images and data of callers, and browsers do not guess their types."""

RECENCY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z#[0-9a-f]{32}")


def process(
    event: dict[str, Any],
    context: LambdaContext,
    settings: Settings,
    services: Services,
    now: datetime,
    app: APIGatewayRestResolver | None = None,
) -> dict[str, Any]:
    """Processes one API Gateway proxy event and returns the proxy response. app: None for the function's resolver."""
    app = app or routes(settings.cors_origins)
    caller, limits = Caller.of(event["requestContext"]), dict[str, str]()
    if caller:
        services = limited(services, caller.owner, settings, now)
    headers = {name.lower(): value for name, value in (event.get("headers") or {}).items()}
    trace_id = trace_id_of(headers.get(trace.HEADER) or "", event["requestContext"].get("requestId") or "")
    app.append_context(  # type: ignore[no-untyped-call]
        settings=settings, services=services, caller=caller, now=now, limits=limits, trace_id=trace_id
    )
    with logger().append_context_keys(trace_id=trace_id):
        response: dict[str, Any] = app.resolve(event, context)
        sent = {**SAFE_HEADERS, **response["multiValueHeaders"], **{name: [value] for name, value in limits.items()}}
        response["multiValueHeaders"] = sent
        fields = {"path": event["path"], "status": response["statusCode"], "caller": caller.id if caller else None}
        logger().info("response", extra=fields)
    return response


def admit(app: APIGatewayRestResolver, next_middleware: NextMiddleware) -> Response[Any]:
    """Middleware that authenticates the caller and applies its rate limit.

    Only OPEN_PATHS need no caller. Every response to a caller has the `X-RateLimit-*` headers of its rate-limit
    window. Raises AuthFailed, RateLimitExceeded.
    """
    event, caller, services = app.current_event, app.context["caller"], app.context["services"]
    if caller:
        window = count_call(services.registry, caller, app.context["now"])
        app.context["limits"].update(window.headers(app.context["now"]))
        if window.exceeded:
            add_usage(services.registry, caller.owner, app.context["now"], refused=1)
        window.check()
        if event.http_method == "POST" or event.path in FETCHING_PATHS:
            quota = app.context["settings"].images_per_month
            check_quota(services.registry, caller.owner, default=quota, now=app.context["now"])
    elif (
        event.path not in OPEN_PATHS and event.http_method != "OPTIONS"
    ):  # browsers send preflight requests without a key
        sent = event.headers.get("x-api-key") or event.headers.get("authorization")
        raise AuthFailed("The API key is unknown or revoked." if sent else MISSING_KEY)
    return next_middleware(app)


def error_response(error: MaskdropError, path: str) -> Response[Any]:
    """Returns the error response in the format of the API that the path belongs to."""
    if path in ERROR_RESPONSES:
        return ERROR_RESPONSES[path](error)
    return Response(error.status, "application/json", {"error": error.info.to_json()}, {})


def health(settings: Settings) -> dict[str, Any]:
    """Returns the status, stage, version and time of the service."""
    return {"status": "ok", "stage": settings.stage, "version": __version__, "time": datetime.now(UTC).isoformat()}


def one_job(job_id: str, caller: Caller, settings: Settings, services: Services) -> dict[str, Any]:
    """Returns the job. The presigned URL of its result is valid for `settings.link_s` seconds. Raises JobNotFound."""
    job = find_job(job_id, caller, services)
    return cutouts.with_urls(job.public(), services.storage, link_s=settings.link_s)


def find_job(job_id: str, caller: Caller, services: Services) -> Job:
    """Returns a job of the caller. Raises JobNotFound, also for a job of another owner."""
    job = services.jobs.get(job_id)
    if job is None or not caller.sees(job):
        raise JobNotFound(f"Job {job_id!r} not found.")
    return job


def new_job(
    body: bytes,
    key: str | None,
    caller: Caller,
    settings: Settings,
    services: Services,
    now: datetime,
    *,
    trace_id: str = "",
) -> Response[dict[str, Any]]:
    """Creates a job. Returns 202, or 200 if the job exists already and has finished.

    key: the request's Idempotency-Key. Raises the errors of `jobs.job_of` and `once`.
    """
    payload = cutouts.object_of(body, "The body")

    def create() -> dict[str, Any]:
        return jobs.job_of(payload, caller, settings, services, now, trace_id=trace_id).public()

    job = create() if key is None else once(services.registry, caller.owner, key, payload, now, create)
    status = 200 if job["finished_at"] else 202
    # Relative to /v1/jobs, because stages and custom domains add a prefix that the service does not know.
    return Response(status, "application/json", job, {"Location": f"jobs/{job['id']}"})


def engines(settings: Settings) -> dict[str, Any]:
    """Returns the engines.

    default_for: the tasks of requests that name neither an engine nor a prompt. interactive: whether this stage returns
    results synchronously. available: whether its containers have the engine; None if that is not known.
    """
    default_for = {name: [task for task, default in DEFAULT_ENGINE.items() if default == name] for name in ENGINES}
    return {
        "engines": [
            {
                "name": engine.name,
                "task": engine.tasks[0],
                "tasks": engine.tasks,
                "default": bool(default_for[engine.name]),
                "default_for": default_for[engine.name],
                "subject": engine.subject,
                "kind": engine.kind,
                "returns": engine.returns,
                "prompts": sorted(engine.prompts),
                "everything": engine.everything,
                "paid": engine.paid,
                "non_commercial": engine.non_commercial,
                "interactive": runs_now(engine.light, settings.interactive_mode),
                "available": settings.has_engine(engine.name),
            }
            for engine in ENGINES.values()
        ]
    }


def presets(of: Presets, caller: Caller) -> dict[str, Any]:
    """Returns the presets. A preset that is not valid has `error` instead of options.

    Only callers of scope `all` see the S3 objects of background images; others see empty names. Raises
    TableUnavailable.
    """

    def options(name: str) -> dict[str, Any]:
        try:
            found = of.find(name)
        except InvalidPreset as error:
            return {"error": error.info.to_json()}
        options: dict[str, Any] = found.to_json() if found else {}
        if caller.scope != "all" and isinstance(options.get("output", {}).get("background"), dict):
            options["output"] = {**options["output"], "background": {"bucket": "", "key": ""}}
        return options

    return {"presets": [{"name": name, **options(name)} for name in of.names()]}


def list_jobs(query: dict[str, str], caller: Caller, services: Services) -> dict[str, Any]:
    """Returns one page of the caller's jobs, most recently changed first.

    Filters: state, prefix of the source's S3 key, time of the last change. Raises InvalidOptions, UnknownCursor.
    """
    selection = Selection(
        owner=None if caller.scope == "all" else caller.owner,
        state=_state(query.get("state")),
        prefix=query.get("prefix", ""),
        since=_time("since", query.get("since")),
        until=_time("until", query.get("until")),
    )
    page = services.jobs.page(selection, before=_decode_cursor(query.get("cursor")), limit=_limit(query.get("limit")))
    cursor = base64.urlsafe_b64encode(page.before.encode()).decode() if page.before else None
    return {"jobs": [job.public() for job in page.jobs], "cursor": cursor}


def usage(query: dict[str, str], caller: Caller, services: Services, now: datetime) -> dict[str, Any]:
    """Returns the usage of the caller's owner in a calendar month (UTC; default: current). Raises InvalidOptions."""
    month = query.get("month", f"{now:%Y-%m}")
    if not MONTH.fullmatch(month):
        raise InvalidOptions(f'"month" must be a month such as 2026-11; got {month!r}.')
    return {"owner": caller.owner, "month": month, **usage_of(services.registry, caller.owner, month)}


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    for state in STATES:
        if state == text:
            return state
    raise InvalidOptions(f'"state" must be one of {", ".join(STATES)}; got {text!r}.')


def _time(name: str, text: str | None) -> datetime | None:
    """Parses an ISO 8601 time. The UTC offset is required, because a local time is ambiguous. Raises InvalidOptions."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidOptions(
            f'"{name}" must be a time with a UTC offset, such as 2026-11-21T12:00:00Z; got {text!r}.'
        ) from None


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= PAGE_MAX:
        raise InvalidOptions(f'"limit" must be an integer from 1 to {PAGE_MAX}; got {text!r}.')
    return int(text)


def _decode_cursor(cursor: str | None) -> str:
    """Returns the `recency` that a cursor encodes; "" without a cursor. Raises InvalidOptions, UnknownCursor."""
    if cursor is None:
        return ""
    if not CURSOR.fullmatch(cursor):
        raise InvalidOptions('"cursor" must be the "cursor" of a previous page.')
    try:
        recency = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        recency = ""
    if not RECENCY.fullmatch(recency):
        raise UnknownCursor("The cursor is not one that a previous page returned.")
    return recency


@lru_cache(maxsize=1)
def routes(cors_origins: str) -> APIGatewayRestResolver:
    """Returns the resolver of the function. cors_origins: origins separated by spaces, as in the settings."""
    return with_routes(APIGatewayRestResolver, cors_origins)


def with_routes(resolver: type[Resolver], cors_origins: str) -> Resolver:
    """Returns a new resolver with all routes."""
    app = resolver(cors=_cors(cors_origins.split()), strip_prefixes=[IAM_PREFIX])
    app.use(middlewares=[admit])

    @app.get("/v1/health")
    def _health() -> dict[str, Any]:
        return health(app.context["settings"])

    @app.get("/v1/openapi.json")
    def _description() -> dict[str, Any]:
        return document()

    @app.get("/v1/docs")
    def _docs() -> Response[str | bytes]:
        headers: dict[str, str | list[str]] = {"Content-Security-Policy": policy(), "Vary": "Accept-Encoding"}
        body: str | bytes = page()
        if "gzip" in app.current_event.headers.get("accept-encoding", ""):
            body, headers["Content-Encoding"] = compressed_page(), "gzip"
        return Response(200, "text/html; charset=utf-8", body, headers)

    @app.get("/v1/jobs")
    def _list() -> dict[str, Any]:
        return list_jobs(app.current_event.query_string_parameters, app.context["caller"], app.context["services"])

    @app.get("/v1/jobs/<job_id>")
    def _one(job_id: str) -> dict[str, Any]:
        return one_job(job_id, app.context["caller"], app.context["settings"], app.context["services"])

    @app.post("/v1/jobs")
    def _new() -> Response[dict[str, Any]]:
        event, caller = app.current_event, app.context["caller"]
        settings, services, now = app.context["settings"], app.context["services"], app.context["now"]
        key = event.headers.get(IDEMPOTENCY_HEADER)
        body, trace_id = cutouts.body_of(event, settings), app.context["trace_id"]
        return new_job(body, key, caller, settings, services, now, trace_id=trace_id)

    @app.delete("/v1/jobs/<job_id>")
    def _delete(job_id: str) -> Response[str]:
        services = app.context["services"]
        remove(find_job(job_id, app.context["caller"], services), app.context["settings"], services)
        return Response(204, body="")

    @app.post("/v1/jobs/<job_id>/retry")
    def _retry(job_id: str) -> Response[dict[str, Any]]:
        services = app.context["services"]
        job = retry(find_job(job_id, app.context["caller"], services), services, app.context["now"])
        return Response(202, "application/json", job.public())

    @app.get("/v1/jobs/<job_id>/source")
    def _source(job_id: str) -> dict[str, str]:
        caller, settings, services = app.context["caller"], app.context["settings"], app.context["services"]
        return jobs.source_url(find_job(job_id, caller, services), caller, settings, services)

    @app.post("/v1/jobs/<job_id>/review")
    def _review(job_id: str) -> dict[str, Any]:
        caller, settings, services = app.context["caller"], app.context["settings"], app.context["services"]
        payload = cutouts.object_of(cutouts.body_of(app.current_event, settings), "The body")
        job = find_job(job_id, caller, services)
        return jobs.review_of(payload, job, caller, settings, services, app.context["now"]).public()

    @app.post("/v1/uploads")
    def _upload() -> Response[dict[str, Any]]:
        settings, services, now = app.context["settings"], app.context["services"], app.context["now"]
        payload = cutouts.object_of(cutouts.body_of(app.current_event, settings), "The body")
        form = jobs.upload(payload, app.context["caller"], settings, services, now)
        return Response(201, "application/json", form)

    @app.get("/v1/engines")
    def _engines() -> dict[str, Any]:
        return engines(app.context["settings"])

    @app.get("/v1/presets")
    def _presets() -> dict[str, Any]:
        return presets(app.context["services"].presets, app.context["caller"])

    @app.get("/v1/usage")
    def _usage() -> dict[str, Any]:
        query = app.current_event.query_string_parameters
        return usage(query, app.context["caller"], app.context["services"], app.context["now"])

    def process_image(task: Task | None) -> Response[Any]:
        settings, services, now = app.context["settings"], app.context["services"], app.context["now"]
        owner = app.context["caller"].owner
        request = cutouts.parse_request(app.current_event, settings, services.presets, task)
        start = time.monotonic()
        image = request.image(services.web)
        spent_s = time.monotonic() - start
        trace_id = app.context["trace_id"]
        reply = cut_out_now(
            image, request.options, request.preset, owner, settings, services, now, spent_s=spent_s, trace_id=trace_id
        )
        add_usage(services.registry, owner, now, pictures=1)
        return cutouts.response(reply, services.storage, link_s=settings.link_s)

    @app.post("/v1/cutouts")
    def _cut_out() -> Response[Any]:
        return process_image(None)

    @app.post("/v1/masks")
    def _mask() -> Response[Any]:
        return process_image("mask")

    @app.post("/v1/detections")
    def _detect() -> Response[Any]:
        return process_image("detect")

    @app.post("/v1/edits")
    def _edit() -> Response[Any]:
        return process_image("replace")

    for dialect in DIALECTS:
        dialect.add_routes(app)

    @app.exception_handler(MaskdropError)  # type: ignore[untyped-decorator]
    def _error(error: MaskdropError) -> Response[dict[str, Any]]:
        response = error_response(error, app.current_event.path.removeprefix(IAM_PREFIX))
        if error.retryable:
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @app.not_found
    def _not_found(_: NotFoundError) -> Response[dict[str, Any]]:
        path = app.current_event.path.removeprefix(IAM_PREFIX)
        methods = methods_at(path)
        if methods and app.current_event.http_method not in methods:
            error = MethodNotAllowed(f"This URL does not support the method; it accepts {' and '.join(methods)}.")
            response = error_response(error, path)
            response.headers["Allow"] = ", ".join(methods)
            return response
        return error_response(NotFound("There is no resource at this URL."), path)

    return app


def _cors(origins: list[str]) -> CORSConfig | None:
    """Returns the CORS configuration; None without origins. Browsers may cache a preflight response for 1 hour."""
    if not origins:
        return None
    first, *others = origins
    exposed = ["Location", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    exposed += [*cutouts.HEADERS, *removebg.HEADERS]
    allowed = [IDEMPOTENCY_HEADER, cutouts.OPTIONS_HEADER, trace.HEADER]
    return CORSConfig(first, others, allow_headers=allowed, expose_headers=exposed, max_age=3600)
