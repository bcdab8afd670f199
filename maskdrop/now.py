"""One image, now: what POST /v1/cutouts does with it. The interactive endpoint gives the result at once; where there
is none, where it cannot run the engine or does not get ready in time, the image becomes a job."""

from __future__ import annotations

import uuid
from datetime import datetime

from maskdrop.catalog import Engine, engine
from maskdrop.errors import EndpointStarting
from maskdrop.flow import enqueue
from maskdrop.job import RESULTS_PREFIX, Job, Source, queued, uploads_of
from maskdrop.options import Options
from maskdrop.services import Services
from maskdrop.settings import Interactive, Settings
from maskdrop.wire import CUSTOM_ATTRIBUTES_MAX, Invocation, Overflow, Reply

BYTES_MAX = 4_000_000
"""Of an image that is handed in, and of a result that is handed out. A function takes and gives 6 MB, in which base64
makes 5.3 MB of it; a serverless endpoint takes and gives 4 MB (4,194,304 bytes)."""

SPENT_MAX_S = 2.0
"""What fetching an image may take: beyond it, the 29 seconds of the gateway no longer hold a cold start, for which the
endpoint has 25."""

CUTOUTS_PREFIX = f"{RESULTS_PREFIX}cutouts/"
"""Where larger results of single images lie, in the results bucket."""


def cut_out_now(
    picture: bytes,
    options: Options,
    preset: str,
    owner: str,
    settings: Settings,
    services: Services,
    now: datetime,
    *,
    spent_s: float = 0.0,
) -> Reply | Job:
    """The result, or the job of `owner` that will have it. spent_s: what its image took to come, in seconds. Raises
    the container's errors and Unavailable."""
    if reply := reply_now(picture, options, settings, services, spent_s=spent_s):
        return reply
    source = Source(settings.inbox, f"{uploads_of(owner)}{uuid.uuid4().hex}", bytes=len(picture))
    services.storage.write(source.bucket, source.key, picture, "application/octet-stream")
    return enqueue(queued(source, preset, options, now, owner=owner), services)


def reply_now(
    picture: bytes, options: Options, settings: Settings, services: Services, *, spent_s: float = 0.0
) -> Reply | None:
    """The result; None where the interactive endpoint cannot be asked for it, or does not get ready in time. Raises as
    `cut_out_now`."""
    key = f"{CUTOUTS_PREFIX}{uuid.uuid4().hex}.{options.output.format}"
    asked = Invocation(options, Overflow(settings.results, key, BYTES_MAX))
    if spent_s > SPENT_MAX_S or not _takes(picture, asked, settings):
        return None
    try:
        return services.interactive.cut_out(picture, asked)
    except EndpointStarting:
        return None


def _takes(picture: bytes, asked: Invocation, settings: Settings) -> bool:
    """Whether the interactive endpoint can be asked for it."""
    fits = len(picture) <= BYTES_MAX and len(asked.to_header()) <= CUSTOM_ATTRIBUTES_MAX
    return fits and runs_now(engine(asked.options.engine), settings.interactive_mode)


def runs_now(one: Engine, mode: Interactive) -> bool:
    """Whether an endpoint of this mode runs the engine."""
    return {"serverless": one.light, "realtime": True, "off": False}[mode]
