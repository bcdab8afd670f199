"""The rules of an image's way: claimed once, submitted in a bundle, ended once. The functions in `lambdas/` call these
with what arrived; `Services` does the work.

    queued ──take──► submitted ──done──► done
      ▲ ▲                │  └────fail──► failed
      │ └────give_back───┘                 │
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
    DirectoryMarker,
    EmptyFile,
    ErrorInfo,
    GaveUp,
    InputError,
    InvalidPreset,
    JobInWork,
    JobNotFailed,
    MaskdropError,
)
from maskdrop.job import Job, Source, State, dropped, uploads_of
from maskdrop.presets import BUILT_IN, Presets
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import (
    BUNDLE_MAX,
    Answer,
    Bundle,
    JobMessage,
    Notification,
    Outcome,
    bundle_of,
    sources_of,
    split_s3_uri,
)

MANIFESTS_PREFIX = "bundles/in/"
ANSWERS_PREFIX = "bundles/out/"
"""Where bundles and their answers lie, in the results bucket beside `results/`."""

SERVICES_USD = 1.8e-5
"""What one image costs in S3, SQS, DynamoDB, Lambda and logs: $0.018 per 1,000 in bundles of 64 with S3 pointers, at
us-east-1 list prices of November 2026."""

WRITERS = 8
"""Threads that write to the table at once: 64 conditional writes of about 5 ms take 40 ms instead of 320."""

LEASE = timedelta(seconds=180)
"""How long a job that is submitted is left alone when its message comes again. `ingest` has 30 seconds to claim and to
hand over; when it dies between the two, SQS delivers the message again after 240. A late duplicate of an event looks
the same, and at worst costs its work once more: the container finds the result that is there."""

DELAY_S = (5, 30, 120, 600, 900)
"""Seconds before the second, third … attempt. SQS delays at most 900."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def bundle_size(attempts: int) -> int:
    """How many images that were tried so often may share a bundle: 64, then 8, then 1. An image that brings the
    container down takes its bundle with it; trying in ever smaller company finds it out and frees the others."""
    return max(1, BUNDLE_MAX >> (3 * attempts))


def arrivals(sources: Iterable[Source], now: datetime, presets: Presets = BUILT_IN) -> list[Job]:
    """The jobs of dropped photos; those that cannot be images, or whose preset cannot be used, are failed already.
    Raises TableUnavailable when the presets cannot be read."""
    return [_arrived(source, now, presets) for source in sources]


def _arrived(source: Source, now: datetime, presets: Presets) -> Job:
    try:
        job = dropped(source, now, presets)
    except InvalidPreset as fault:
        return _failed(dropped(source, now), fault)
    if source.key.endswith("/"):
        return _failed(job, DirectoryMarker("The key ends in '/': it marks a folder and holds no image."))
    if source.bytes == 0:
        return _failed(job, EmptyFile("The file is empty: it has 0 bytes."))
    return job


def _failed(job: Job, fault: InputError) -> Job:
    return replace(job, state="failed", error=fault.info, finished_at=job.created_at)


def enqueue(job: Job, services: Services) -> Job:
    """Writes a new job that waits its turn, and announces it. One that is there already is returned as it stands; while
    it waits it is announced once more, as the first time may have failed."""
    known = job if services.jobs.claim(job) else services.jobs.get(job.id) or job
    if known.state == "queued":
        services.jobs_queue.send([JobMessage(known.id, known.attempts).to_body()])
    return known


def retry(job: Job, services: Services, now: datetime) -> Job:
    """Queues a failed job anew, in a bundle as small as its attempts call for: it may have been what brought the others
    down. One that waits is announced once more. A dropped photo whose preset could not be used gets what its folder
    says by now. Raises JobNotFailed, and InvalidPreset where that still cannot be used."""
    if job.state == "failed" and job.error and job.error.code == InvalidPreset.code and not job.owner:
        meant = dropped(job.source, now, services.presets)
        job = replace(job, preset=meant.preset, options=meant.options)
    waiting = services.jobs.retry(job, now=now) if job.state == "failed" else job
    if waiting is None or waiting.state != "queued":
        raise JobNotFailed(f"Only a failed job is tried anew, and this one is {job.state}.")
    services.jobs_queue.send([JobMessage(job.id, job.attempts).to_body()])
    return waiting


def remove(job: Job, settings: Settings, services: Services) -> None:
    """Forgets a job, its result and what its owner sent for it; a photo that was dropped is not ours to delete. Raises
    JobInWork while it is submitted: its result could come any moment.

    The images of an ended job go first, so that a try that breaks off can be made again. Those of one that waits go
    last: it might be taken meanwhile."""
    if job.finished_at:
        _remove_pictures(job, settings, services)
    if job.state == "submitted" or not services.jobs.delete(job.id, state=job.state):
        raise JobInWork("The job is in work. It can be deleted when it has ended.")
    if not job.finished_at:
        _remove_pictures(job, settings, services)


def _remove_pictures(job: Job, settings: Settings, services: Services) -> None:
    bucket, key = (job.result.bucket, job.result.key) if job.result else (settings.results, job.result_key)
    stored = services.storage.look(bucket, key)
    if stored and stored.job == job.id:  # a photo that replaced the dropped one has its result there too
        services.storage.delete(bucket, key)
    if job.owner and job.source.bucket == settings.inbox and job.source.key.startswith(uploads_of(job.owner)):
        services.storage.delete(job.source.bucket, job.source.key)


def waiting_in(body: str, now: datetime, presets: Presets = BUILT_IN) -> list[Job | JobMessage]:
    """What a message on the intake queue (an S3 notification) or on the jobs queue announces. Raises ValueError or
    KeyError when it is neither, TableUnavailable when the presets cannot be read."""
    data = json.loads(body)
    if not isinstance(data, dict):
        raise ValueError("The message is not an object.")
    if "job_id" in data:
        return [JobMessage.from_body(body)]
    if "Records" in data or data.get("Event") == "s3:TestEvent":
        return [*arrivals(sources_of(data), now, presets)]
    raise ValueError("The message is neither an S3 notification nor a job's.")


def admit(
    waiting: Sequence[Job | JobMessage], settings: Settings, services: Services, now: datetime
) -> list[MaskdropError | None]:
    """Claims what waits and submits what was claimed, in bundles. Duplicates are passed over.

    Returns, in the order of `waiting`, the error of each whose message must come back; None for the others.
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
    services.events.publish([job for job in claims if isinstance(job, Job) and job.state == "failed"])
    jobs = [job for job in claims if isinstance(job, Job) and job.state == "submitted"]
    refusal = _hand_over(bundle, jobs, settings, services, now) if jobs else None
    return [
        claim if isinstance(claim, MaskdropError) else refusal if claim and claim.state == "submitted" else None
        for claim in claims
    ]


def _claim(one: Job | JobMessage, bundle: str, services: Services, now: datetime) -> Job | MaskdropError | None:
    """The job, now ours; None for a duplicate; the error that kept us from knowing."""
    try:
        if isinstance(one, JobMessage):
            return services.jobs.take(one.job_id, bundle=bundle, now=now, abandoned=now - LEASE)
        job = one if one.state == "failed" else replace(one, state="submitted", bundle=bundle, attempts=1)
        if services.jobs.claim(job):
            return job
        # There already: a duplicate event, unless an earlier try to submit it was given back or died half-way.
        return services.jobs.take(job.id, bundle=bundle, now=now, abandoned=now - LEASE)
    except MaskdropError as error:
        return error


def _hand_over(
    bundle: str, jobs: Sequence[Job], settings: Settings, services: Services, now: datetime
) -> MaskdropError | None:
    """Submits one bundle. When that fails, its jobs are queued again and the error is returned. Should that fail too,
    the sweep finds them."""
    try:
        key = f"{MANIFESTS_PREFIX}{bundle}.json"
        manifest = bundle_of(bundle, jobs, settings.results).to_bytes()
        services.storage.write(settings.results, key, manifest, "application/json")
        services.endpoint.submit(bundle, f"s3://{settings.results}/{key}")
    except MaskdropError as error:
        in_threads(lambda job: services.jobs.give_back(job.id, bundle=bundle, now=now), jobs)
        return error
    return None


def settle(notification: Notification, settings: Settings, services: Services, now: datetime) -> None:
    """Records what became of a bundle: each of its jobs is done, failed, or queued for another attempt."""
    if not notification.completed:
        reason = f"The endpoint failed: {notification.reason[:500]}"
        unsettle(notification, ErrorInfo("endpoint_failed", reason, True), settings, services, now)
        return
    answer = Answer.from_bytes(services.storage.read(*split_s3_uri(notification.output)))

    def settle_one(outcome: Outcome) -> Job | None:
        if outcome.error is None:
            return services.jobs.done(outcome.id, outcome, bundle=answer.bundle, cost_usd=cost(answer), now=now)
        if outcome.error.retryable:
            return again(outcome.id, outcome.error, answer.bundle, settings, services, now)
        return services.jobs.fail(outcome.id, outcome.error, bundle=answer.bundle, now=now)

    _tell_ended(in_threads(settle_one, answer.outcomes), services)


def unsettle(
    notification: Notification, error: ErrorInfo, settings: Settings, services: Services, now: datetime
) -> None:
    """Sends every job of a bundle round again. Results that are there already are found by the container and not made
    twice."""
    bundle = Bundle.from_bytes(services.storage.read(*split_s3_uri(notification.input)))
    _tell_ended(
        in_threads(lambda item: again(item.id, error, bundle.id, settings, services, now), bundle.items), services
    )


def _tell_ended(jobs: Iterable[Job | None], services: Services) -> None:
    services.events.publish([job for job in jobs if job and job.finished_at])


def again(
    job_id: str, error: ErrorInfo, bundle: str, settings: Settings, services: Services, now: datetime
) -> Job | None:
    """Queues a job for another attempt, or fails it when it had its last one. None when another bundle has it now."""
    job = services.jobs.give_back(job_id, bundle=bundle, now=now)
    if job is None:
        return None
    if job.attempts >= settings.max_attempts:
        gave_up = GaveUp(f"It was tried {job.attempts} times. The last time: {error.message}")
        return services.jobs.fail(job_id, gave_up.info, bundle=bundle, now=now)
    delay = DELAY_S[min(job.attempts, len(DELAY_S)) - 1] if job.attempts else 0
    services.jobs_queue.send([JobMessage(job.id, job.attempts).to_body()], delay_s=delay)
    return job


def sweep(settings: Settings, services: Services, now: datetime, *, limit: int = 1000) -> int:
    """Sends jobs round again whose last change is too long ago, whatever became of their messages. Returns how many."""
    since = now - timedelta(seconds=settings.overdue_s)
    error = ErrorInfo("overdue", f"No answer came within {settings.overdue_s} seconds.", retryable=True)
    states: tuple[State, ...] = ("queued", "submitted")
    late = [job for state in states for job in services.jobs.overdue(state, since=since, limit=limit)]
    moved = [
        job for job in in_threads(lambda job: again(job.id, error, job.bundle, settings, services, now), late) if job
    ]
    _tell_ended(moved, services)
    return len(moved)


def bury(waiting: Iterable[Job | JobMessage], reason: str, services: Services, now: datetime) -> None:
    """Fails jobs whose messages reached the dead-letter queue. A job that is submitted or finished stays as it is."""
    error = GaveUp(reason).info
    failed: list[Job] = []
    for one in waiting:
        if isinstance(one, Job):
            dead = replace(one, state="failed", error=error, finished_at=now)
            if services.jobs.claim(dead):
                failed.append(dead)
                continue
        job = services.jobs.get(one.job_id if isinstance(one, JobMessage) else one.id)
        if job and job.state == "queued":
            buried = services.jobs.fail(job.id, error, bundle=job.bundle, now=now)
            failed.extend([buried] if buried else [])
    services.events.publish(failed)


def cost(answer: Answer) -> float | None:
    """What one image of the answer cost, in US dollars: its share of the instance, and the services around it. None
    where nothing is billed."""
    share = answer.usd_per_item
    return None if share is None else share + SERVICES_USD


def in_threads(work: Callable[[_In], _Out], things: Iterable[_In]) -> list[_Out]:
    """`work` on each thing, WRITERS at a time, answers in order. The first error is raised after all have run."""
    with ThreadPoolExecutor(WRITERS) as pool:
        return list(pool.map(work, things))
