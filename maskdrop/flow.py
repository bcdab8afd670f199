"""The life cycle of a job: claimed once, submitted in a bundle, finished once. The functions in `lambdas/` call these
with parsed events; `Services` does the input and output.

    queued ──take──► submitted ──done──► done
      ▲ ▲                │  └────fail──► failed
      │ └─────requeue────┘                 │
      └─────────────────retry──────────────┘
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import TypeVar

from maskdrop.errors import (
    AttemptsExhausted,
    DirectoryMarker,
    EmptyFile,
    ErrorInfo,
    InputError,
    InvalidPreset,
    JobInProgress,
    JobNotFailed,
    MaskdropError,
)
from maskdrop.job import Job, Source, State, dropped, uploads_of
from maskdrop.presets import BUILT_IN, Presets
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import (
    BUNDLE_MAX,
    Bundle,
    BundleResponse,
    JobMessage,
    Notification,
    Outcome,
    bundle_of,
    sources_of,
    split_s3_uri,
)

BUNDLES_PREFIX = "bundles/in/"
RESPONSES_PREFIX = "bundles/out/"
"""Key prefixes of bundles and of their responses, in the results bucket."""

SERVICES_USD = 1.8e-5
"""Cost of one image in S3, SQS, DynamoDB, Lambda and logs: $0.018 per 1,000 images in bundles of 64, at us-east-1 list
prices of November 2026."""

WRITERS = 8
"""Concurrent writers to the table: 64 conditional writes of about 5 ms take 40 ms instead of 320 ms."""

LEASE = timedelta(seconds=180)
"""Age of a submission after which a redelivered message submits its job again. `ingest` has 30 s to claim and submit;
if it crashes between the two, SQS redelivers the message after 240 s. A late duplicate of an event looks the same: its
image is at worst processed again, where the container does not find the existing result."""

DELAY_S = (5, 30, 120, 600, 900)
"""Seconds before the second, third … attempt. The maximum delay of SQS is 900 s."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def bundle_size(attempts: int) -> int:
    """Maximum items of a bundle whose images were submitted `attempts` times before: 64, then 8, then 1. An image that
    crashes the container fails its whole bundle; smaller bundles isolate it from the others."""
    return max(1, BUNDLE_MAX >> (3 * attempts))


def new_jobs(sources: Iterable[Source], now: datetime, presets: Presets = BUILT_IN) -> list[Job]:
    """The jobs of dropped photos. Jobs of folder markers, empty files and invalid presets are in state `failed`. Raises
    TableUnavailable where the presets cannot be read."""
    return [_new_job(source, now, presets) for source in sources]


def _new_job(source: Source, now: datetime, presets: Presets) -> Job:
    try:
        job = dropped(source, now, presets)
    except InvalidPreset as error:
        return _failed(dropped(source, now), error)
    if source.key.endswith("/"):
        return _failed(job, DirectoryMarker("The key ends with '/': it is a folder marker, not an image."))
    if source.bytes == 0:
        return _failed(job, EmptyFile("The file is empty: it has 0 bytes."))
    return job


def _failed(job: Job, error: InputError) -> Job:
    return replace(job, state="failed", error=error.info, finished_at=job.created_at)


def enqueue(job: Job, services: Services) -> Job:
    """Writes a new queued job and sends its message. An existing job is returned unchanged; while it is queued, its
    message is sent again, since the first one may have failed."""
    known = job if services.jobs.claim(job) else services.jobs.get(job.id) or job
    if known.state == "queued":
        services.jobs_queue.send([JobMessage(known.id, known.attempts).to_body()])
    return known


def retry(job: Job, services: Services, now: datetime) -> Job:
    """Queues a failed job again. Its attempts still limit the size of its bundle, since its image may have crashed the
    container. The message of a queued job is sent again. A dropped photo with an invalid preset gets the current one
    of its folder. Raises JobNotFailed, and InvalidPreset where the preset is still invalid."""
    if job.state == "failed" and job.error and job.error.code == InvalidPreset.code and not job.owner:
        current = dropped(job.source, now, services.presets)
        job = replace(job, preset=current.preset, options=current.options)
    waiting = services.jobs.retry(job, now=now) if job.state == "failed" else job
    if waiting is None or waiting.state != "queued":
        raise JobNotFailed(f"Only a failed job can be retried; this job is {job.state}.")
    services.jobs_queue.send([JobMessage(job.id, job.attempts).to_body()])
    return waiting


def remove(job: Job, settings: Settings, services: Services) -> None:
    """Deletes a job, its result and its owner's upload; a dropped photo is kept. Raises JobInProgress while the job is
    submitted, since its result may still arrive.

    The images of a finished job are deleted before its record, so that an interrupted deletion can be repeated. Those
    of a queued job are deleted after its record, since the job may be submitted meanwhile.
    """
    if job.finished_at:
        _remove_images(job, settings, services)
    if job.state == "submitted" or not services.jobs.delete(job.id, state=job.state):
        raise JobInProgress("The job is submitted; delete it when it is done or failed.")
    if not job.finished_at:
        _remove_images(job, settings, services)


def _remove_images(job: Job, settings: Settings, services: Services) -> None:
    bucket, key = (job.result.bucket, job.result.key) if job.result else (settings.results, job.result_key)
    stored = services.storage.head(bucket, key)
    if stored and stored.job == job.id:  # not the result of a newer photo with the same key
        services.storage.delete(bucket, key)
    if job.owner and job.source.bucket == settings.inbox and job.source.key.startswith(uploads_of(job.owner)):
        services.storage.delete(job.source.bucket, job.source.key)


def parse_message(body: str, now: datetime, presets: Presets = BUILT_IN) -> list[Job | JobMessage]:
    """The jobs of a message on the jobs queue: an S3 notification, or a message of one job.

    Raises ValueError or KeyError for other messages, TableUnavailable where the presets cannot be read.
    """
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("The message must be a JSON object.")
    if "job_id" in data:
        return [JobMessage.from_body(body)]
    if "Records" in data or data.get("Event") == "s3:TestEvent":
        return [*new_jobs(sources_of(data), now, presets)]
    raise ValueError("The message must be an S3 notification or a job message.")


def admit(
    waiting: Sequence[Job | JobMessage], settings: Settings, services: Services, now: datetime
) -> list[MaskdropError | None]:
    """Claims jobs and submits the claimed ones in bundles. Duplicates are skipped.

    Returns, in the order of `waiting`, an error for each job whose message must be redelivered; None for the others.
    """
    errors: list[MaskdropError | None] = [None] * len(waiting)
    order = sorted(range(len(waiting)), key=lambda index: waiting[index].attempts)
    for attempts, group in groupby(order, key=lambda index: waiting[index].attempts):
        indices, size = list(group), bundle_size(attempts)
        for start in range(0, len(indices), size):
            chosen = indices[start : start + size]
            admitted = _admit_bundle([waiting[index] for index in chosen], settings, services, now)
            for index, error in zip(chosen, admitted, strict=True):
                errors[index] = error
    return errors


def _admit_bundle(
    waiting: Sequence[Job | JobMessage], settings: Settings, services: Services, now: datetime
) -> list[MaskdropError | None]:
    bundle = uuid.uuid4().hex
    claims = in_threads(lambda one: _claim(one, bundle, services, now), waiting)
    jobs = [claim for claim in claims if isinstance(claim, Job)]
    services.events.publish([job for job in jobs if job.state == "failed"])
    submitted = [job for job in jobs if job.state == "submitted"]
    refusal = _submit(bundle, submitted, settings, services, now) if submitted else None
    return [_redelivery_error(claim, refusal) for claim in claims]


def _redelivery_error(claim: Job | MaskdropError | None, refusal: MaskdropError | None) -> MaskdropError | None:
    """The error for which the message of a claim must be redelivered. refusal: the error of the bundle's submission."""
    if isinstance(claim, MaskdropError):
        return claim
    return refusal if claim and claim.state == "submitted" else None


def _claim(one: Job | JobMessage, bundle: str, services: Services, now: datetime) -> Job | MaskdropError | None:
    """Returns the claimed job, None for a duplicate, or the error of the claim."""
    try:
        if isinstance(one, JobMessage):
            return services.jobs.take(one.job_id, bundle=bundle, now=now, abandoned=now - LEASE)
        job = one if one.state == "failed" else replace(one, state="submitted", bundle=bundle, attempts=1)
        if services.jobs.claim(job):
            return job
        # The job exists: a duplicate event, or an earlier submission that was returned to the queue or crashed.
        return services.jobs.take(job.id, bundle=bundle, now=now, abandoned=now - LEASE)
    except MaskdropError as error:
        return error


def _submit(
    bundle: str, jobs: Sequence[Job], settings: Settings, services: Services, now: datetime
) -> MaskdropError | None:
    """Submits one bundle. On failure its jobs are queued again and the error is returned. If queueing fails too, the
    sweep queues them."""
    try:
        key = f"{BUNDLES_PREFIX}{bundle}.json"
        manifest = bundle_of(bundle, jobs, settings.results).to_bytes()
        services.storage.write(settings.results, key, manifest, "application/json")
        services.endpoint.submit(bundle, f"s3://{settings.results}/{key}")
    except MaskdropError as error:
        in_threads(lambda job: services.jobs.requeue(job.id, bundle=bundle, now=now), jobs)
        return error
    return None


def record_bundle(notification: Notification, settings: Settings, services: Services, now: datetime) -> None:
    """Records the outcomes of a bundle: each of its jobs is done, failed, or queued for another attempt."""
    if not notification.completed:
        reason = f"The endpoint failed: {notification.reason[:500]}"
        requeue_bundle(notification, ErrorInfo("endpoint_failed", reason, True), settings, services, now)
        return
    response = BundleResponse.from_bytes(services.storage.read(*split_s3_uri(notification.output)))

    def record_outcome(outcome: Outcome) -> Job | None:
        if outcome.error is None:
            return services.jobs.done(outcome.id, outcome, bundle=response.bundle, cost_usd=cost(response), now=now)
        if outcome.error.retryable:
            return retry_or_fail(outcome.id, outcome.error, response.bundle, settings, services, now)
        return services.jobs.fail(outcome.id, outcome.error, bundle=response.bundle, now=now)

    _publish_finished(in_threads(record_outcome, response.outcomes), services)


def requeue_bundle(
    notification: Notification, error: ErrorInfo, settings: Settings, services: Services, now: datetime
) -> None:
    """Queues every job of a failed bundle again. The container finds results that exist and does not compute them
    twice."""
    bundle = Bundle.from_bytes(services.storage.read(*split_s3_uri(notification.input)))
    _publish_finished(
        in_threads(lambda item: retry_or_fail(item.id, error, bundle.id, settings, services, now), bundle.items),
        services,
    )


def _publish_finished(jobs: Iterable[Job | None], services: Services) -> None:
    services.events.publish([job for job in jobs if job and job.finished_at])


def retry_or_fail(
    job_id: str, error: ErrorInfo, bundle: str, settings: Settings, services: Services, now: datetime
) -> Job | None:
    """Queues a job for another attempt, or fails it after the last one. None where another bundle has claimed it."""
    job = services.jobs.requeue(job_id, bundle=bundle, now=now)
    if job is None:
        return None
    if job.attempts >= settings.max_attempts:
        final = AttemptsExhausted(f"The job failed after {job.attempts} attempts. Last error: {error.message}")
        return services.jobs.fail(job_id, final.info, bundle=bundle, now=now)
    delay = DELAY_S[min(job.attempts, len(DELAY_S)) - 1] if job.attempts else 0
    services.jobs_queue.send([JobMessage(job.id, job.attempts).to_body()], delay_s=delay)
    return job


def sweep(settings: Settings, services: Services, now: datetime, *, limit: int = 1000) -> int:
    """Queues jobs again whose last change is longer ago than `overdue_s`. Returns their number."""
    since = now - timedelta(seconds=settings.overdue_s)
    error = ErrorInfo(
        "overdue", f"The endpoint returned no response within {settings.overdue_s} seconds.", retryable=True
    )
    states: tuple[State, ...] = ("queued", "submitted")
    late = [job for state in states for job in services.jobs.overdue(state, since=since, limit=limit)]
    moved = [
        job
        for job in in_threads(lambda job: retry_or_fail(job.id, error, job.bundle, settings, services, now), late)
        if job
    ]
    _publish_finished(moved, services)
    return len(moved)


def fail_dead_letters(waiting: Iterable[Job | JobMessage], reason: str, services: Services, now: datetime) -> None:
    """Fails jobs whose messages reached the dead-letter queue. Submitted and finished jobs are unchanged."""
    error = AttemptsExhausted(reason).info
    failed: list[Job] = []
    for one in waiting:
        if isinstance(one, Job):
            dead = replace(one, state="failed", error=error, finished_at=now)
            if services.jobs.claim(dead):
                failed.append(dead)
                continue
        job = services.jobs.get(one.job_id if isinstance(one, JobMessage) else one.id)
        if job and job.state == "queued":
            updated = services.jobs.fail(job.id, error, bundle=job.bundle, now=now)
            failed.extend([updated] if updated else [])
    services.events.publish(failed)


def cost(response: BundleResponse) -> float | None:
    """Cost of one image of a bundle in US dollars: its share of the instance's price, and the other services.
    None where nothing is billed."""
    share = response.usd_per_item
    return None if share is None else share + SERVICES_USD


def in_threads(function: Callable[[_In], _Out], items: Iterable[_In]) -> list[_Out]:
    """Calls `function` with each item in WRITERS threads; results in order. Raises the first error after all calls."""
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(function, items))
