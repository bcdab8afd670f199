"""GET /v1/health, /v1/jobs and /v1/jobs/{id}, and POST /v1/cutouts, behind API Gateway."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from functools import lru_cache
from heapq import merge
from itertools import islice
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect, cutouts
from lambdas.observe import logger, observed
from maskdrop import __version__
from maskdrop.errors import InvalidOptions, JobNotFound, MaskdropError
from maskdrop.job import STATES, Job
from maskdrop.now import cut_out_now
from maskdrop.services import Services
from maskdrop.settings import Settings

PAGE, PAGE_MAX = 50, 200

RETRY_AFTER_S = 5
"""What a caller is told to wait who came when a part was missing or busy."""

RECENCY = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z#[0-9a-f]{32}")


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return work(event, context, connect.settings(), connect.services())


def work(event: dict[str, Any], context: LambdaContext, settings: Settings, services: Services) -> dict[str, Any]:
    app = routes()
    app.append_context(settings=settings, services=services)  # type: ignore[no-untyped-call]
    answer = app.resolve(event, context)
    logger().info("answered", extra={"path": event["path"], "status": answer["statusCode"]})
    return answer


def health(settings: Settings) -> dict[str, Any]:
    return {"status": "ok", "stage": settings.stage, "version": __version__, "time": datetime.now(UTC).isoformat()}


def one_job(job_id: str, settings: Settings, services: Services) -> dict[str, Any]:
    """The job, its result with an address that is valid for `settings.link_s` seconds. Raises JobNotFound."""
    job = services.jobs.get(job_id)
    if job is None:
        raise JobNotFound(f"There is no job {job_id!r}.")
    said = job.to_json()
    if job.result:
        said["result"]["url"] = services.storage.link(job.result.bucket, job.result.key, seconds=settings.link_s)
    return said


def list_jobs(query: dict[str, str], services: Services) -> dict[str, Any]:
    """Jobs of one state, or of all, the newest change first. Raises InvalidOptions."""
    state, limit, before = query.get("state"), _limit(query.get("limit")), _opened(query.get("cursor"))
    if state is not None and state not in STATES:
        raise InvalidOptions(f'"state" is one of {", ".join(STATES)}, not {state!r}.')
    pages = [services.jobs.page(one, before=before, limit=limit) for one in STATES if state in (None, one)]
    jobs: list[Job] = list(islice(merge(*pages, key=lambda job: job.recency, reverse=True), limit))
    cursor = base64.urlsafe_b64encode(jobs[-1].recency.encode()).decode() if len(jobs) == limit else None
    return {"jobs": [job.to_json() for job in jobs], "cursor": cursor}


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
def routes() -> APIGatewayRestResolver:
    app = APIGatewayRestResolver()

    @app.get("/v1/health")
    def _health() -> dict[str, Any]:
        return health(app.context["settings"])

    @app.get("/v1/jobs")
    def _list() -> dict[str, Any]:
        return list_jobs(app.current_event.query_string_parameters, app.context["services"])

    @app.get("/v1/jobs/<job_id>")
    def _one(job_id: str) -> dict[str, Any]:
        return one_job(job_id, app.context["settings"], app.context["services"])

    @app.post("/v1/cutouts")
    def _cut_out() -> Response[Any]:
        settings, services = app.context["settings"], app.context["services"]
        asked = cutouts.asked_of(app.current_event)
        picture = asked.picture(services.fetch)
        answer = cut_out_now(picture, asked.options, asked.preset, settings, services, datetime.now(UTC))
        return cutouts.response(answer, services.storage, link_s=settings.link_s)

    @app.exception_handler(MaskdropError)  # type: ignore[untyped-decorator]
    def _error(error: MaskdropError) -> Response[dict[str, Any]]:
        return Response(
            status_code=error.status,
            content_type="application/json",
            body={"error": error.info.to_json()},
            headers={"Retry-After": str(RETRY_AFTER_S)} if error.retryable else None,
        )

    @app.not_found
    def _not_found(_: NotFoundError) -> Response[dict[str, Any]]:
        error = {"code": "not_found", "message": "There is nothing at this address.", "retryable": False}
        return Response(status_code=404, content_type="application/json", body={"error": error})

    return app
