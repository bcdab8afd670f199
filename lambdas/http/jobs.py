"""POST /v1/uploads, POST /v1/jobs and below: images that are processed asynchronously, and reviews of their results.

upload  {"name", "content_type"}: returns a presigned form for the file, and the id of the upload
job     {"source": {"upload"} | {"bucket", "key"} | {"url"}}; optional: "preset", "task", "engine", "prompt", "output"
        and "webhook" (a URL)
review  {"verdict": "accepted" | "corrected"}; optional for "corrected": "upload", the corrected cut-out (PNG)
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from lambdas.http.cutouts import options_of
from maskdrop.access import Caller, add_usage
from maskdrop.errors import EmptyFile, InvalidOptions, NotAllowed, OptionsConflict, SourceMissing
from maskdrop.flow import enqueue
from maskdrop.interactive import check_edit, check_engine
from maskdrop.job import INBOX_PREFIX, UPLOADS_PREFIX, Job, Source, Webhook, queued, uploads_of
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.record import iso
from maskdrop.review import check_source, review_job
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.ssrf import Policy, receiver

UPLOAD_S = 300
"""Lifetime of a presigned upload form, in seconds."""

KEY_MAX = 1024
"""Maximum length of an S3 key in bytes."""

UNSEEN = r"\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
"""Control characters, which terminals interpret, and those that reverse or hide text, so that names deceive."""

KEY = re.compile(rf"[^{UNSEEN}\ud800-\udfff]{{1,{KEY_MAX}}}")
"""S3 key of an object."""

NAME = re.compile(r"(?!\.{1,2}$)[^/\\${}" + UNSEEN + r"\ud800-\udfff]{1,128}")
"""File name without a path, and without "${": S3 replaces `${filename}` with the name of the posted file."""

UPLOAD = re.compile(rf"[0-9a-f]{{32}}/{NAME.pattern}")

CONTENT_TYPE = re.compile(r"image/[a-z0-9.+-]{1,60}|application/octet-stream")


def upload(payload: Mapping[str, Any], caller: Caller, settings: Settings, services: Services, now: datetime) -> Any:
    """Returns a presigned form for one file, valid for UPLOAD_S. The form counts with its maximum size.

    Raises InvalidOptions, RateLimitExceeded.
    """
    match payload:
        case {"name": str(name), "content_type": str(content_type)} if len(payload) == 2:
            pass
        case _:
            raise InvalidOptions('The body must be an object with "name" and "content_type".')
    if not NAME.fullmatch(name):
        raise InvalidOptions(
            '"name" must be a file name of 1 to 128 characters without slashes, "$", braces and control characters.'
        )
    if not CONTENT_TYPE.fullmatch(content_type):
        raise InvalidOptions(
            f'"content_type" must be image/… in lower case, or application/octet-stream; got {content_type!r:.80}.'
        )
    upload_id = f"{uuid.uuid4().hex}/{name}"
    key = uploads_of(caller.owner) + upload_id
    form = services.storage.form(settings.inbox, key, content_type, bytes_max=IMAGE_BYTES_MAX, seconds=UPLOAD_S)
    end = iso(now + timedelta(seconds=UPLOAD_S))
    return {
        "upload": upload_id,
        "url": form.url,
        "fields": form.fields,
        "bytes_max": IMAGE_BYTES_MAX,
        "expires_at": end,
    }


def job_of(
    payload: Mapping[str, Any],
    caller: Caller,
    settings: Settings,
    services: Services,
    now: datetime,
    *,
    trace_id: str = "",
) -> Job:
    """Creates and queues a job. Returns the existing job if the owner has one for the same object and options.

    A new job counts in the owner's usage. Raises InvalidOptions, InvalidPrompt, UnknownEngine, InvalidPreset,
    NotAllowed, SourceMissing, EmptyFile, Unavailable, and for URLs the errors of `ssrf.receiver` and `web.fetch`.
    """
    fields = dict(payload)
    source_field, url = fields.pop("source", None), fields.pop("webhook", None)
    preset, options = options_of(services.presets, fields)
    webhook = None if url is None else _webhook(url, caller, settings)
    check_engine(options, settings)
    check_edit(options, services)
    source = _source(source_field, caller, settings, services)
    job = queued(source, preset, options, now, owner=caller.owner, trace_id=trace_id)
    job = enqueue(replace(job, webhook=webhook), services)
    if job.created_at == now:
        add_usage(services.registry, caller.owner, now, pictures=1)
    return job


def source_url(job: Job, caller: Caller, settings: Settings, services: Services) -> dict[str, str]:
    """Returns the presigned URL of a job's source, for callers that may use the S3 object.

    Raises NotAllowed, SourceMissing, SourceReplaced.
    """
    _permit(job.source.bucket, job.source.key, caller, settings)
    check_source(job.source, services.storage)
    return {"url": services.storage.link(job.source.bucket, job.source.key, seconds=settings.link_s)}


def review_of(
    payload: Mapping[str, Any], job: Job, caller: Caller, settings: Settings, services: Services, now: datetime
) -> Job:
    """Writes a review. Raises InvalidOptions, OptionsConflict, NotAllowed, and the errors of `review_job`."""
    match payload:
        case {"verdict": "accepted" | "corrected" as verdict, **rest} if not rest.keys() - {"upload"}:
            upload = rest.get("upload")
        case _:
            raise InvalidOptions('The body must be an object with "verdict" (accepted or corrected), and "upload".')
    if upload is None:
        return review_job(job, verdict, "", caller.id, settings, services, now)
    if not isinstance(upload, str):
        raise InvalidOptions('"upload" must be the id of an upload (a string).')
    if verdict == "accepted":
        raise OptionsConflict('"upload" is the corrected cut-out: the verdict must be "corrected".')
    key = _upload_key(upload, caller)
    if (settings.inbox, key) == (job.source.bucket, job.source.key):  # it would be moved away
        raise OptionsConflict('"upload" is the source of the job: send the corrected cut-out as an upload of its own.')
    _permit(job.source.bucket, job.source.key, caller, settings)
    return review_job(job, verdict, key, caller.id, settings, services, now)


def _upload_key(upload_id: str, caller: Caller) -> str:
    """Returns the key of an upload of the caller's owner. Raises SourceMissing for a text that is not an id."""
    if not UPLOAD.fullmatch(upload_id):
        raise SourceMissing(f"Upload {upload_id!r:.200} not found.")
    return uploads_of(caller.owner) + upload_id


def _webhook(url: Any, caller: Caller, settings: Settings) -> Webhook:
    if not isinstance(url, str):
        raise InvalidOptions('"webhook" must be a URL (a string).')
    if not caller.key:
        raise InvalidOptions("Webhooks are signed with the secret of an API key; send this request with an API key.")
    receiver(url, Policy.of(settings))
    return Webhook(url, caller.key)


def _source(field: Any, caller: Caller, settings: Settings, services: Services) -> Source:
    """Returns the S3 object of the image in its current version; first stores an image from a URL in the inbox."""
    match field:
        case {"upload": str(upload_id)} if len(field) == 1:
            bucket, key = settings.inbox, _upload_key(upload_id, caller)
        case {"bucket": str(bucket), "key": str(key)} if len(field) == 2:
            _permit(bucket, key, caller, settings)
        case {"url": str(url)} if len(field) == 1:
            image = services.web.fetch(url)
            bucket, key = settings.inbox, f"{uploads_of(caller.owner)}{uuid.uuid4().hex}"
            services.storage.write(bucket, key, image.body, image.content_type)
        case _:
            raise InvalidOptions('"source" must be {"upload": …}, {"bucket": …, "key": …} or {"url": …}.')
    stored = services.storage.head(bucket, key)
    if stored is None:
        raise SourceMissing(f"{'Upload' if 'upload' in field else 'Object'} {field.get('upload', key)!r} not found.")
    if stored.bytes == 0:
        raise EmptyFile("The file is empty: it has 0 bytes.")
    return Source(bucket, key, stored.version_id, stored.bytes)


def _permit(bucket: str, key: str, caller: Caller, settings: Settings) -> None:
    """Checks that the caller may use an S3 object, because the endpoint reads it with its own permissions.

    All callers may use the objects in `source_buckets`, and the uploads of their owner in the inbox. Callers with the
    scope "all" may use the whole inbox. Raises NotAllowed, InvalidOptions, SourceMissing.
    """
    if not KEY.fullmatch(key):
        raise InvalidOptions(f'"key" must have 1 to {KEY_MAX} characters and no control characters.')
    own = (INBOX_PREFIX, UPLOADS_PREFIX) if caller.scope == "all" else (uploads_of(caller.owner),)
    allowed = [*settings.sources, *((settings.inbox, prefix) for prefix in own)]
    if not any(bucket == open_bucket and _is_under(prefix, key) for open_bucket, prefix in allowed):
        raise NotAllowed(
            "This caller may not use this S3 object. Allowed: its own uploads and objects in `source_buckets`; with "
            "the scope all, also the inbox."
        )
    if len(key.encode()) > KEY_MAX:  # S3 returns 400 for such a key
        raise SourceMissing(f'"key" must have at most {KEY_MAX} bytes; there is no such object.')


def _is_under(prefix: str, key: str) -> bool:
    """Returns whether a key begins with a prefix, which ends with "/" or is "". S3 compares bytes: "é" as one character
    and as two are different keys. Below a prefix, keys with the parts "." and ".." are refused: they are ordinary names
    for S3, but a program on the way that treats the key as a path would leave the prefix."""
    return not prefix or (key.startswith(prefix) and not {".", ".."} & {*key.split("/")})
