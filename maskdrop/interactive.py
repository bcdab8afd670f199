"""Synchronous cut-outs (POST /v1/cutouts). The interactive endpoint returns the result in the response. Without such an
endpoint, or where it cannot run the engine or is not ready in time, the image becomes a job."""

from __future__ import annotations

import uuid
from datetime import datetime

from maskdrop.catalog import PROMPTED_ENGINE, engine
from maskdrop.errors import EndpointStarting, UnknownEngine
from maskdrop.flow import enqueue
from maskdrop.job import RESULTS_PREFIX, Job, Source, queued, uploads_of
from maskdrop.limits import BYTES_MAX as BYTES_MAX
from maskdrop.options import Options
from maskdrop.services import Services
from maskdrop.settings import Interactive, Settings
from maskdrop.wire import CUSTOM_ATTRIBUTES_MAX, ImageResponse, Invocation, Overflow

SPENT_MAX_S = 2.0
"""Seconds that fetching an image may take, so that a cold start of the endpoint (up to 25 s) fits into the gateway's
timeout of 29 s."""

CUTOUTS_PREFIX = f"{RESULTS_PREFIX}cutouts/"
"""Key prefix, in the results bucket, of results that are too large for a response."""


def cut_out_now(
    image: bytes,
    options: Options,
    preset: str,
    owner: str,
    settings: Settings,
    services: Services,
    now: datetime,
    *,
    spent_s: float = 0.0,
    trace_id: str = "",
) -> ImageResponse | Job:
    """Returns the result, or the queued job of `owner`. spent_s: seconds that fetching the image took. Raises the
    container's errors and Unavailable."""
    check_edit(options, services)
    if reply := invoke_now(image, options, settings, services, spent_s=spent_s):
        return reply
    source = Source(settings.inbox, f"{uploads_of(owner)}{uuid.uuid4().hex}", bytes=len(image))
    services.storage.write(source.bucket, source.key, image, "application/octet-stream")
    return enqueue(queued(source, preset, options, now, owner=owner, trace_id=trace_id), services)


def check_edit(options: Options, services: Services) -> None:
    """Raises TextNotSupported for an edit that the editor of the stage cannot generate."""
    if edit := options.edit:
        for prompt in edit.prompts:
            services.editor.check(prompt, edit.change)


def check_engine(options: Options, settings: Settings) -> None:
    """Raises UnknownEngine for an engine, or ViTMatte, that the containers are known not to have."""
    needed = [options.engine] if options.refine == "guided" else [options.engine, options.refine]
    if missing := [name for name in needed if settings.has_engine(name) is False]:
        raise UnknownEngine(
            f'The engine {missing[0]!r} is not installed on this server: GET /v1/engines has "available" for each '
            "engine. To install it: `maskdrop models list` names its weights, `maskdrop models pull WEIGHTS` downloads "
            "them; then restart the server, or run `maskdrop models push` for a stage in AWS."
        )


def invoke_now(
    image: bytes, options: Options, settings: Settings, services: Services, *, spent_s: float = 0.0
) -> ImageResponse | None:
    """Returns the result; None where the interactive endpoint does not take the request or is not ready in time. Raises
    as `check_engine` and `cut_out_now` do."""
    check_engine(options, settings)
    key = f"{CUTOUTS_PREFIX}{uuid.uuid4().hex}.{options.extension}"
    invocation = Invocation(options, Overflow(settings.results, key, settings.image_bytes))
    if spent_s > SPENT_MAX_S or not _accepts(image, invocation, settings):
        return None
    try:
        return services.interactive.cut_out(image, invocation)
    except EndpointStarting:
        return None


def segment_box_now(request: bytes, settings: Settings, services: Services) -> bytes | None:
    """Returns the response to the JSON of an older system (maskdrop/predecessor.py), which must be valid; None as
    `invoke_now`. Raises as `cut_out_now` does."""
    if not runs_now(engine(PROMPTED_ENGINE).light, settings.interactive_mode):
        return None
    try:
        return services.interactive.segment_box(request)
    except EndpointStarting:
        return None


def _accepts(image: bytes, invocation: Invocation, settings: Settings) -> bool:
    """Whether the interactive endpoint takes a request of this size and engine."""
    if invocation.options.edit:
        return False  # the function `edit` generates its images
    fits = len(image) <= settings.image_bytes and len(invocation.to_header()) <= CUSTOM_ATTRIBUTES_MAX
    return fits and runs_now(invocation.options.light, settings.interactive_mode)


def runs_now(light: bool, mode: Interactive) -> bool:
    """Whether an interactive endpoint of this mode runs engines or options that are light, or not."""
    return {"serverless": light, "realtime": True, "off": False}[mode]
