"""What is behind API Gateway: /v1/health, /v1/jobs, /v1/usage, /v1/cutouts and the addresses of the dialects; with a
key, or below /iam with a signature of AWS's."""

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

from lambdas import connect, cutouts
from lambdas.dialects import rembg, removebg, withoutbg
from lambdas.observe import logger, observed
from maskdrop import __version__
from maskdrop.access import IAM_PREFIX, OPEN_PATHS, Caller, count_call, use, used
from maskdrop.errors import AuthFailed, InvalidOptions, JobNotFound, MaskdropError
from maskdrop.job import STATES, State
from maskdrop.now import cut_out_now
from maskdrop.services import Selection, Services
from maskdrop.settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools.event_handler.middlewares import NextMiddleware

DIALECTS = (removebg, rembg, withoutbg)
REFUSALS: dict[str, Callable[[MaskdropError], Response[Any]]] = {
    path: dialect.refusal for dialect in DIALECTS for path in dialect.PATHS
}

PAGE, PAGE_MAX = 50, 200

RETRY_AFTER_S = 5
"""What a caller is told to wait who came when a part was missing or busy."""

MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])", re.ASCII)

RECENCY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z#[0-9a-f]{32}")


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return work(event, context, connect.settings(), connect.services(), datetime.now(UTC))


def work(
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
    """The job, its result with an address that is valid for `settings.link_s` seconds. Raises JobNotFound, for
    another's job too."""
    job = services.jobs.get(job_id)
    if job is None or not caller.sees(job):
        raise JobNotFound(f"There is no job {job_id!r}.")
    said = job.to_json()
    if job.result:
        said["result"]["url"] = services.storage.link(job.result.bucket, job.result.key, seconds=settings.link_s)
    return said


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
    try:
        recency = base64.b64decode(cursor, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        recency = ""
    if not RECENCY.fullmatch(recency):
        raise InvalidOptions("The cursor is not one that an earlier page gave.")
    return recency


@lru_cache(maxsize=1)
def routes(cors_origins: str) -> APIGatewayRestResolver:
    """cors_origins: as in the settings."""
    app = APIGatewayRestResolver(cors=_cors(cors_origins.split()), strip_prefixes=[IAM_PREFIX])
    app.use(middlewares=[admit])

    @app.get("/v1/health")
    def _health() -> dict[str, Any]:
        return health(app.context["settings"])

    @app.get("/v1/jobs")
    def _list() -> dict[str, Any]:
        return list_jobs(app.current_event.query_string_parameters, app.context["caller"], app.context["services"])

    @app.get("/v1/jobs/<job_id>")
    def _one(job_id: str) -> dict[str, Any]:
        return one_job(job_id, app.context["caller"], app.context["settings"], app.context["services"])

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
        error = {"code": "not_found", "message": "There is nothing at this address.", "retryable": False}
        return Response(status_code=404, content_type="application/json", body={"error": error})

    return app


def _cors(origins: list[str]) -> CORSConfig | None:
    """Browsers may keep what they were told for an hour, and their pages may read what the headers say."""
    if not origins:
        return None
    first, *others = origins
    told = ["Location", "Retry-After", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"]
    told += [*cutouts.HEADERS, *removebg.HEADERS]
    return CORSConfig(first, others, expose_headers=told, max_age=3600)
