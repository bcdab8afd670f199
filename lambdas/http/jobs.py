"""POST /v1/uploads and POST /v1/jobs: pictures that are worked in their turn.

upload  {"name", "content_type"}: where to post the file, and the id by which a job names it
job     {"source": {"upload"} | {"bucket", "key"} | {"url"}}, and beside it "preset", "task", "engine", "prompt",
        "output" and "webhook", an address
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from lambdas.http.cutouts import options_of
from maskdrop.access import Caller, use
from maskdrop.errors import EmptyFile, InvalidOptions, NotAllowed, SourceMissing
from maskdrop.flow import enqueue
from maskdrop.guard import Policy, receiver
from maskdrop.job import INBOX_PREFIX, UPLOADS_PREFIX, Job, Source, Webhook, iso, queued, uploads_of
from maskdrop.services import Services
from maskdrop.settings import Settings

UPLOAD_MAX = 32 * 1024 * 1024
"""Bytes of a file that is uploaded: what the container takes (MODEL_MAX_BYTES)."""

UPLOAD_S = 300
"""How long a file may be posted, in seconds."""

KEY_MAX = 1024
"""Bytes of a key in S3."""

KEY = re.compile(rf"[^\x00-\x1f\x7f\ud800-\udfff]{{1,{KEY_MAX}}}")
"""Of an object: without control characters, which logs would act on."""

NAME = re.compile(r"(?!\.{1,2}$)[^/\\${}\x00-\x1f\x7f\ud800-\udfff]{1,128}")
"""Of a file: of one folder, and without "${", for which S3 would put in something of the poster's."""

UPLOAD = re.compile(rf"[0-9a-f]{{32}}/{NAME.pattern}")

CONTENT_TYPE = re.compile(r"image/[a-z0-9.+-]{1,60}|application/octet-stream")


def upload(said: Mapping[str, Any], caller: Caller, settings: Settings, services: Services, now: datetime) -> Any:
    """The form for one file of at most UPLOAD_MAX bytes, which must come within UPLOAD_S. Raises InvalidOptions."""
    match said:
        case {"name": str(name), "content_type": str(content_type)} if len(said) == 2:
            pass
        case _:
            raise InvalidOptions('The body is an object of "name" and "content_type".')
    if not NAME.fullmatch(name):
        raise InvalidOptions('"name" is the name of a file: up to 128 characters without slashes, "$" and braces.')
    if not CONTENT_TYPE.fullmatch(content_type):
        raise InvalidOptions('"content_type" is image/… in small letters, or application/octet-stream.')
    chosen = f"{uuid.uuid4().hex}/{name}"
    key = uploads_of(caller.owner) + chosen
    form = services.storage.form(settings.inbox, key, content_type, bytes_max=UPLOAD_MAX, seconds=UPLOAD_S)
    ends = iso(now + timedelta(seconds=UPLOAD_S))
    return {"upload": chosen, "url": form.url, "fields": form.fields, "bytes_max": UPLOAD_MAX, "expires_at": ends}


def job_of(said: Mapping[str, Any], caller: Caller, settings: Settings, services: Services, now: datetime) -> Job:
    """The job that is asked for, queued: or as it stands, where the same owner asked for the same result of the same
    object before. Its picture is counted when it is new. Raises InvalidOptions, InvalidPrompt, UnknownEngine,
    InvalidPreset, NotAllowed, SourceMissing, EmptyFile, for addresses what `guard.receiver` and `web.fetch` raise, and
    Unavailable."""
    given = dict(said)
    told, address = given.pop("source", None), given.pop("webhook", None)
    preset, options = options_of(services.presets, given)
    webhook = None if address is None else _webhook(address, caller, settings)
    source = _source(told, caller, settings, services)
    asked = queued(source, preset, options, now, owner=caller.owner)
    job = enqueue(replace(asked, webhook=webhook), services)
    if job.created_at == now:
        use(services.registry, caller.owner, now, pictures=1)
    return job


def _webhook(address: Any, caller: Caller, settings: Settings) -> Webhook:
    if not isinstance(address, str):
        raise InvalidOptions('"webhook" is an address, a text.')
    if not caller.key:
        raise InvalidOptions("A webhook is signed with the secret of an API key, and this call came without one.")
    receiver(address, Policy.of(settings))
    return Webhook(address, caller.key)


def _source(told: Any, caller: Caller, settings: Settings, services: Services) -> Source:
    """Where the picture is, in the version that is there now; one from the web is brought there."""
    match told:
        case {"upload": str(chosen)} if len(told) == 1:
            bucket, key = settings.inbox, uploads_of(caller.owner) + chosen
            if not UPLOAD.fullmatch(chosen):
                raise SourceMissing(f"There is no upload {chosen!r:.200}.")
        case {"bucket": str(bucket), "key": str(key)} if len(told) == 2:
            _permit(bucket, key, caller, settings)
        case {"url": str(url)} if len(told) == 1:
            picture = services.web.fetch(url)
            bucket, key = settings.inbox, f"{uploads_of(caller.owner)}{uuid.uuid4().hex}"
            services.storage.write(bucket, key, picture.body, picture.content_type)
        case _:
            raise InvalidOptions('"source" is {"upload": …}, {"bucket": …, "key": …} or {"url": …}.')
    stored = services.storage.look(bucket, key)
    if stored is None:
        raise SourceMissing(f"There is no {'upload' if 'upload' in told else 'object'} {told.get('upload', key)!r}.")
    if stored.bytes == 0:
        raise EmptyFile("The file is empty: it has 0 bytes.")
    return Source(bucket, key, stored.version_id, stored.bytes)


def _permit(bucket: str, key: str, caller: Caller, settings: Settings) -> None:
    """What lies in S3 is read with the endpoint's rights, not the caller's. The operator opens whole buckets to all
    callers; of the inbox, a caller has what it sees the jobs of. Raises NotAllowed, InvalidOptions, SourceMissing."""
    if not KEY.fullmatch(key):
        raise InvalidOptions(f'"key" has 1 to {KEY_MAX} characters, none of them a control character.')
    own = (INBOX_PREFIX, UPLOADS_PREFIX) if caller.scope == "all" else (uploads_of(caller.owner),)
    if bucket not in settings.source_buckets.split() and not (bucket == settings.inbox and key.startswith(own)):
        raise NotAllowed("This place in S3 is not open to this caller.")
    if len(key.encode()) > KEY_MAX:  # S3 calls the question a bad one
        raise SourceMissing("There is no object with so long a key.")
