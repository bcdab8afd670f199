"""The routes behind API Gateway, ours and the dialects': with a key, or below /iam with a signature of AWS's."""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, CORSConfig, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.http import cutouts, jobs
from lambdas.http.dialects import rembg, removebg, withoutbg
from lambdas.http.openapi import CURSOR, MONTH, PAGE, PAGE_MAX, document, methods_at
from lambdas.http.page import POLICY, page
from lambdas.observe import logger
from maskdrop import __version__
from maskdrop.access import IAM_PREFIX, OPEN_PATHS, Caller, count_call, use, used
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES
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
from maskdrop.job import STATES, Job, State
from maskdrop.now import cut_out_now, runs_now
from maskdrop.once import IDEMPOTENCY_HEADER, once
from maskdrop.presets import Presets
from maskdrop.services import Selection, Services
from maskdrop.settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware

DIALECTS = (removebg, rembg, withoutbg)
REFUSALS: dict[str, Callable[[MaskdropError], Response[Any]]] = {
    path: dialect.refusal for dialect in DIALECTS for path in dialect.PATHS
}

RETRY_AFTER_S = 5
"""What a caller is told to wait who came when a part was missing or busy."""

RECENCY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z#[0-9a-f]{32}")


def process(
    event: dict[str, Any], context: LambdaContext, settings: Settings, services: Services, now: datetime
) -> dict[str, Any]:
    app = routes(settings.cors_origins)
    caller, limits = Caller.of(event["requestContext"]), dict[str, str]()
    app.append_context(  # type: ignore[no-untyped-call]
        settings=settings, services=services, caller=caller, now=now, limits=limits
    )
    answer = app.resolve(event, context)
    answer["multiValueHeaders"] |= {name: [value] for name, value in limits.items()}
    told = {"path": event["path"], "status": answer["statusCode"], "caller": caller.id if caller else None}
    logger().info("answered", extra=told)
    return answer


def admit(app: APIGatewayRestResolver, next_middleware: NextMiddleware) -> Response[Any]:
    """Before every route: nobody comes further than the open paths, no caller further than its rate. What the window
    says of itself stands in every answer to a caller. Raises AuthFailed, RateLimitExceeded."""
    event, caller, services = app.current_event, app.context["caller"], app.context["services"]
    if caller:
        window = count_call(services.registry, caller, app.context["now"])
        app.context["limits"].update(window.headers(app.context["now"]))
        if window.exceeded:
            use(services.registry, caller.owner, app.context["now"], refused=1)
        window.check()
    elif event.path not in OPEN_PATHS and event.http_method != "OPTIONS":  # a browser asks those without a key
        raise AuthFailed("This address needs an API key, in X-Api-Key or as Authorization: Bearer.")
    return next_middleware(app)


def refusal(error: MaskdropError, path: str) -> Response[Any]:
    """An error in the form of whose address was asked."""
    if path in REFUSALS:
        return REFUSALS[path](error)
    return Response(error.status, "application/json", {"error": error.info.to_json()}, {})


def health(settings: Settings) -> dict[str, Any]:
    return {"status": "ok", "stage": settings.stage, "version": __version__, "time": datetime.now(UTC).isoformat()}


def one_job(job_id: str, caller: Caller, settings: Settings, services: Services) -> dict[str, Any]:
    """The job, its result with an address that is valid for `settings.link_s` seconds. Raises JobNotFound."""
    job = seen(job_id, caller, services)
    said = job.to_json()
    if job.result:
        said["result"]["url"] = services.storage.link(job.result.bucket, job.result.key, seconds=settings.link_s)
    return said


def seen(job_id: str, caller: Caller, services: Services) -> Job:
    """Raises JobNotFound, for another's job too."""
    job = services.jobs.get(job_id)
    if job is None or not caller.sees(job):
        raise JobNotFound(f"There is no job {job_id!r}.")
    return job


def new_job(
    body: bytes, key: str | None, caller: Caller, settings: Settings, services: Services, now: datetime
) -> Response[dict[str, Any]]:
    """202 with the job that is asked for; 200 where it is there already and has ended. key: the request's
    Idempotency-Key. Raises what `jobs.job_of` and `once` raise."""
    said = cutouts.object_of(body, "The body")

    def process() -> dict[str, Any]:
        return jobs.job_of(said, caller, settings, services, now).to_json()

    job = process() if key is None else once(services.registry, caller.owner, key, said, now, process)
    status = 200 if job["finished_at"] else 202
    # Relative to /v1/jobs, as the service does not know what stands before it.
    return Response(status, "application/json", job, {"Location": f"jobs/{job['id']}"})


def engines(settings: Settings) -> dict[str, Any]:
    """The catalogue. interactive: whether POST /v1/cutouts of this stage gives its results at once."""
    return {
        "engines": [
            {
                "name": engine.name,
                "task": engine.task,
                "default": DEFAULT_ENGINE[engine.task] == engine.name,
                "subject": engine.subject,
                "returns": engine.returns,
                "prompts": sorted(engine.prompts),
                "interactive": runs_now(engine, settings.interactive_mode),
            }
            for engine in ENGINES.values()
        ]
    }


def presets(of: Presets) -> dict[str, Any]:
    """By name; one that cannot be used has its error instead of options. Raises TableUnavailable."""

    def told(name: str) -> dict[str, Any]:
        try:
            found = of.find(name)
        except InvalidPreset as fault:
            return {"error": fault.info.to_json()}
        return found.to_json() if found else {}

    return {"presets": [{"name": name, **told(name)} for name in of.names()]}


def list_jobs(query: dict[str, str], caller: Caller, services: Services) -> dict[str, Any]:
    """The caller's jobs by state, prefix of the source's key and time of the last change, the newest first. Raises
    InvalidOptions."""
    selection = Selection(
        owner=None if caller.scope == "all" else caller.owner,
        state=_state(query.get("state")),
        prefix=query.get("prefix", ""),
        since=_time("since", query.get("since")),
        until=_time("until", query.get("until")),
    )
    page = services.jobs.page(selection, before=_opened(query.get("cursor")), limit=_limit(query.get("limit")))
    cursor = base64.urlsafe_b64encode(page.before.encode()).decode() if page.before else None
    return {"jobs": [job.to_json() for job in page.jobs], "cursor": cursor}


def usage(query: dict[str, str], caller: Caller, services: Services, now: datetime) -> dict[str, Any]:
    """What the caller's owner used in a month of UTC, the running one by default. Raises InvalidOptions."""
    month = query.get("month", f"{now:%Y-%m}")
    if not MONTH.fullmatch(month):
        raise InvalidOptions(f'"month" is a month, as 2026-11, not {month!r}.')
    return {"owner": caller.owner, "month": month, **used(services.registry, caller.owner, month)}


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    for state in STATES:
        if state == text:
            return state
    raise InvalidOptions(f'"state" is one of {", ".join(STATES)}, not {text!r}.')


def _time(name: str, text: str | None) -> datetime | None:
    """ISO 8601; a time without an offset would be anybody's guess."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidOptions(f'"{name}" is a time with its offset, as 2026-11-21T12:00:00Z, not {text!r}.') from None


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= PAGE_MAX:
        raise InvalidOptions(f'"limit" is a whole number from 1 to {PAGE_MAX}, not {text!r}.')
    return int(text)


def _opened(cursor: str | None) -> str:
    """The `recency` inside a cursor."""
    if cursor is None:
        return ""
    if not CURSOR.fullmatch(cursor):
        raise InvalidOptions('"cursor" is the text that an earlier page gave.')
    try:
        recency = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        recency = ""
    if not RECENCY.fullmatch(recency):
        raise UnknownCursor("The cursor is not one that an earlier page gave.")
    return recency


@lru_cache(maxsize=1)
def routes(cors_origins: str) -> APIGatewayRestResolver:
    """cors_origins: as in the settings."""
    app = APIGatewayRestResolver(cors=_cors(cors_origins.split()), strip_prefixes=[IAM_PREFIX])
    app.use(middlewares=[admit])

    @app.get("/v1/health")
    def _health() -> dict[str, Any]:
        return health(app.context["settings"])

    @app.get("/v1/openapi.json")
    def _description() -> dict[str, Any]:
        return document()

    @app.get("/v1/docs", compress=True)
    def _docs() -> Response[str]:
        return Response(200, "text/html; charset=utf-8", page(), {"Content-Security-Policy": POLICY})

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
        return new_job(cutouts.body_of(event), key, caller, settings, services, now)

    @app.delete("/v1/jobs/<job_id>")
    def _delete(job_id: str) -> Response[str]:
        services = app.context["services"]
        remove(seen(job_id, app.context["caller"], services), app.context["settings"], services)
        return Response(204, body="")

    @app.post("/v1/jobs/<job_id>/retry")
    def _retry(job_id: str) -> Response[dict[str, Any]]:
        services = app.context["services"]
        job = retry(seen(job_id, app.context["caller"], services), services, app.context["now"])
        return Response(202, "application/json", job.to_json())

    @app.post("/v1/uploads")
    def _upload() -> Response[dict[str, Any]]:
        settings, services, now = app.context["settings"], app.context["services"], app.context["now"]
        said = cutouts.object_of(cutouts.body_of(app.current_event), "The body")
        form = jobs.upload(said, app.context["caller"], settings, services, now)
        return Response(201, "application/json", form)

    @app.get("/v1/engines")
    def _engines() -> dict[str, Any]:
        return engines(app.context["settings"])

    @app.get("/v1/presets")
    def _presets() -> dict[str, Any]:
        return presets(app.context["services"].presets)

    @app.get("/v1/usage")
    def _usage() -> dict[str, Any]:
        query = app.current_event.query_string_parameters
        return usage(query, app.context["caller"], app.context["services"], app.context["now"])

    @app.post("/v1/cutouts")
    def _cut_out() -> Response[Any]:
        settings, services, now = app.context["settings"], app.context["services"], app.context["now"]
        owner = app.context["caller"].owner
        asked = cutouts.asked_of(app.current_event, services.presets)
        began = time.monotonic()
        picture = asked.picture(services.web)
        spent_s = time.monotonic() - began
        answer = cut_out_now(picture, asked.options, asked.preset, owner, settings, services, now, spent_s=spent_s)
        use(services.registry, owner, now, pictures=1)
        return cutouts.response(answer, services.storage, link_s=settings.link_s)

    for dialect in DIALECTS:
        dialect.add_routes(app)

    @app.exception_handler(MaskdropError)  # type: ignore[untyped-decorator]
    def _error(error: MaskdropError) -> Response[dict[str, Any]]:
        answer = refusal(error, app.current_event.path.removeprefix(IAM_PREFIX))
        if error.retryable:
            answer.headers["Retry-After"] = str(RETRY_AFTER_S)
        return answer

    @app.not_found
    def _not_found(_: NotFoundError) -> Response[dict[str, Any]]:
        path = app.current_event.path.removeprefix(IAM_PREFIX)
        methods = methods_at(path)
        if methods and app.current_event.http_method not in methods:
            answer = refusal(MethodNotAllowed(f"This address takes {' and '.join(methods)}."), path)
            answer.headers["Allow"] = ", ".join(methods)
            return answer
        return refusal(NotFound("There is nothing at this address."), path)

    return app


def _cors(origins: list[str]) -> CORSConfig | None:
    """Browsers may keep what they were told for an hour, and their pages may read what the headers say."""
    if not origins:
        return None
    first, *others = origins
    told = ["Location", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    told += [*cutouts.HEADERS, *removebg.HEADERS]
    taken = [IDEMPOTENCY_HEADER, cutouts.OPTIONS_HEADER]
    return CORSConfig(first, others, allow_headers=taken, expose_headers=told, max_age=3600)
