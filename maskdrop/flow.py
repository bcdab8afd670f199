"""The life cycle of a job: claimed once, submitted in a bundle, finished once. The functions in `lambdas/` call these
with parsed events; `Services` does the input and output.

    queued ──take──► submitted ──done──► done
      ▲ ▲                │  └────fail──► failed
      │ └─requeue, advance┘                │
      └─────────────────retry──────────────┘

`advance` queues a job for the next stage of its edit (`maskdrop.editing`).
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Literal

from maskdrop import malware
from maskdrop.edit import Stage, edit_keys
from maskdrop.errors import (
    AttemptsExhausted,
    DirectoryMarker,
    EmptyFile,
    EndpointUnavailable,
    ErrorInfo,
    InputError,
    InvalidPreset,
    JobInProgress,
    JobNotFailed,
    MaskdropError,
    NotAllowed,
    SourceError,
    SourceMissing,
    StorageUnavailable,
    Unavailable,
)
from maskdrop.job import Job, Source, State, dropped, group_of, uploads_of
from maskdrop.presets import BUILT_IN, Presets
from maskdrop.review import delete_training_record
from maskdrop.services import Queue, RetryServices, Services
from maskdrop.settings import Settings
from maskdrop.threads import in_threads
from maskdrop.valve import DELAY_MAX_S, SHARE_DELAY_S, Valve
from maskdrop.wire import (
    STARTED_PREFIX,
    Bundle,
    BundleResponse,
    Item,
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

LEASE = timedelta(seconds=180)
"""Age of a submission after which a redelivered message submits its job again. `ingest` has 30 s to claim and submit;
if it crashes between the two, SQS redelivers the message after 240 s. A late duplicate of an event looks the same: its
image is at worst processed again, where the container does not find the existing result."""

DELAY_S = (5, 30, 120, 600, 900)
"""Seconds before the second, third … attempt. The last one is the maximum delay of an SQS message."""

EDITS_KEPT = timedelta(days=6)
"""Time after which a failed job starts again, because the files of its edit expire a day later."""

STORAGE_ATTEMPTS = 30
"""Attempts of a job whose last error is that the container could not read or write S3: with the delays above, 6 hours
and 30 minutes, as long as messages are redelivered while S3 or the table is unavailable. 5 attempts would take 13
minutes."""


def bundle_size(attempts: int, bundle_max: int) -> int:
    """Maximum items of a bundle whose images were submitted `attempts` times before: 64, then 8, then 1, with a
    `bundle_max` of 64. An image that crashes the container fails its whole bundle; smaller bundles isolate it from the
    others."""
    return max(1, bundle_max >> (3 * attempts))


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
        send_messages([known], services)
    return known


def queue_of(stage: Stage, services: RetryServices) -> Queue:
    """The queue of the function that processes jobs in a stage."""
    return services.edits_queue if stage == "edit" else services.jobs_queue


def send_messages(jobs: Sequence[Job], services: RetryServices, *, delay_s: int = 0) -> None:
    """Sends the message of each job to the queue of its stage, in the message group of its owner."""
    for stage, group in sorted({(job.stage, group_of(job.owner)) for job in jobs}):
        own = [job for job in jobs if (job.stage, group_of(job.owner)) == (stage, group)]
        bodies = [JobMessage(job.id, job.attempts, job.trace_id, group).to_body() for job in own]
        queue_of(stage, services).send(bodies, delay_s=delay_s, group=group)


def retry(job: Job, services: RetryServices, now: datetime) -> Job:
    """Queues a failed job again. Its attempts still limit the size of its bundle, since its image may have crashed the
    container. The message of a queued job is sent again. A dropped photo with an invalid preset gets the current one
    of its folder. Raises JobNotFailed, and InvalidPreset where the preset is still invalid.

    A job with an edit resumes at its stage, with the images that were generated before. It starts again where the files
    of its edit have expired."""
    if job.state == "failed" and job.error and job.error.code == InvalidPreset.code and not job.owner:
        current = dropped(job.source, now, services.presets)
        job = replace(job, preset=current.preset, options=current.options)
    if job.state == "failed" and job.stage != "segment" and _lacks_files(job, now):
        job = replace(job, stage="segment", candidates=())
    waiting = services.jobs.retry(job, now=now) if job.state == "failed" else job
    if waiting is None or waiting.state != "queued":
        raise JobNotFailed(f"Only a failed job can be retried; this job is {job.state}.")
    attempts = 0 if waiting.stage == "edit" else job.attempts
    send_messages([replace(waiting, attempts=attempts)], services)
    return waiting


def _lacks_files(job: Job, now: datetime) -> bool:
    """Whether the files of a failed job's edit are deleted, or will be soon."""
    missing = job.error is not None and job.error.code == SourceMissing.code
    return missing or now - job.changed_at > EDITS_KEPT


def remove(job: Job, settings: Settings, services: Services) -> None:
    """Deletes a job, its result, its training record and its owner's upload; a dropped photo is kept. Raises
    JobInProgress while the job is submitted, since its result may still arrive.

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
    results = {(item.result.bucket, item.result.key) for item in job.results}
    results.add((job.result.bucket, job.result.key) if job.result else (settings.results, job.result_key))
    for bucket, key in sorted(results):
        stored = services.storage.head(bucket, key)
        if stored and stored.job == job.id:  # not the result of a newer photo with the same key
            services.storage.delete(bucket, key)
    if job.review and job.review.training:
        delete_training_record(job, settings, services.storage)
    if job.options.edit:
        for key in edit_keys(job.id, job.options.edit):
            services.storage.delete(settings.results, key)
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

    Jobs for which the endpoint has no room, or whose bundle it refuses, are queued with a new, delayed message. That
    costs neither an attempt of the job nor a receive of a message.

    Returns, in the order of `waiting`, an error for each job whose message must be redelivered; None for the others.
    """
    errors: list[MaskdropError | None] = [None] * len(waiting)

    def process(indices: list[int], function: Callable[[list[Job | JobMessage]], list[MaskdropError | None]]) -> None:
        for index, error in zip(indices, function([waiting[index] for index in indices]), strict=True):
            errors[index] = error

    invalid = [index for index, one in enumerate(waiting) if isinstance(one, Job) and one.state == "failed"]
    if invalid:
        process(invalid, lambda jobs: _record_invalid(jobs, services))

    valid = sorted(set(range(len(waiting))) - set(invalid))
    valve = Valve(services.registry, settings, now)
    delayed: list[int] = []
    try:
        crowded = valve.crowded() if any(map(_group, waiting)) else set()
        held_back = [index for index in valid if _group(waiting[index]) in crowded]
        bundles = _bundles(waiting, sorted(set(valid) - set(held_back)), settings)
        allowed = valve.reserve({bundle: len(indices) for bundle, indices in bundles.items()})
    except MaskdropError as error:
        for index in valid:
            errors[index] = error
        return errors
    if held_back:
        process(held_back, lambda ones: _delay(ones, services, SHARE_DELAY_S))
    for bundle, indices in bundles.items():
        try:
            if bundle in allowed:
                process(indices, partial(_admit_bundle, bundle, valve=valve, services=services))
            else:
                delayed += indices
        except EndpointUnavailable:
            allowed.clear()
            delayed += indices
    if delayed:
        process(delayed, lambda ones: _delay(ones, services, valve))
    return errors


def _group(one: Job | JobMessage) -> str:
    """The message group of a waiting job's owner; "" for the drop folder."""
    return one.group if isinstance(one, JobMessage) else group_of(one.owner)


def _bundles(waiting: Sequence[Job | JobMessage], indices: Iterable[int], settings: Settings) -> dict[str, list[int]]:
    """Groups the indices of waiting jobs by bundle. Jobs with different numbers of attempts do not share a bundle."""
    bundles: dict[str, list[int]] = {}
    for attempts, group in itertools.groupby(
        sorted(indices, key=lambda index: waiting[index].attempts), key=lambda index: waiting[index].attempts
    ):
        chosen, size = list(group), bundle_size(attempts, min(settings.bundle_max, settings.backlog_max))
        for start in range(0, len(chosen), size):
            bundles[uuid.uuid4().hex] = chosen[start : start + size]
    return bundles


def _record_invalid(jobs: Sequence[Job | JobMessage], services: Services) -> list[MaskdropError | None]:
    """Writes new jobs that have failed and publishes their events; again for a redelivered message, whose first
    delivery may have ended in between."""
    try:
        failed = in_threads(lambda job: _fail_new(job, services), [job for job in jobs if isinstance(job, Job)])
        services.events.publish([job for job in failed if job])
    except MaskdropError as error:
        return [error for _ in jobs]
    return [None for _ in jobs]


def _fail_new(job: Job, services: Services) -> Job | None:
    """Writes a new job that has failed. Also returns a job that has failed with the same error before."""
    known = job if services.jobs.claim(job) else services.jobs.get(job.id)
    return known if known and known.error == job.error else None


def _delay(waiting: Sequence[Job | JobMessage], services: Services, delay: Valve | int) -> list[MaskdropError | None]:
    """Sends a delayed message for each job. New jobs are written first, so that their users see them.

    delay: in seconds; or the valve, which pauses submissions and returns it.
    """

    def write(new: Job) -> Job | None:
        return new if services.jobs.claim(new) else services.jobs.get(new.id)

    try:
        jobs = in_threads(write, [one for one in waiting if isinstance(one, Job)])
        messages = [one for one in waiting if isinstance(one, JobMessage)]
        delay_s = delay if isinstance(delay, int) else delay.pause()
        for group in sorted({one.group for one in messages}):
            bodies = [one.to_body() for one in messages if one.group == group]
            services.jobs_queue.send(bodies, delay_s=delay_s, group=group)
        # Also of submitted jobs: `ingest` may have crashed before it submitted their bundle.
        send_messages([job for job in jobs if job and not job.finished_at], services, delay_s=delay_s)
    except MaskdropError as error:
        return [error] * len(waiting)
    return [None] * len(waiting)


def _admit_bundle(
    bundle: str, waiting: Sequence[Job | JobMessage], *, valve: Valve, services: Services
) -> list[MaskdropError | None]:
    """Claims jobs and submits them in one bundle. Raises EndpointUnavailable where the endpoint refuses it.

    On failure the claimed jobs are queued again and get their attempt back. If that fails too, the redelivered messages
    take them after LEASE.
    """
    claims = in_threads(lambda one: _claim(one, bundle, services, valve.now), waiting)
    jobs = list({claim.id: claim for claim in claims if isinstance(claim, Job)}.values())  # a job may have two messages
    scans = (
        in_threads(lambda job: _scan(job, valve, services), jobs) if valve.settings.malware_scan else [None] * len(jobs)
    )
    clean = [job for job, found in zip(jobs, scans, strict=True) if found is None]
    withheld = [(job, found) for job, found in zip(jobs, scans, strict=True) if found]
    failure: MaskdropError | None = None
    try:
        if clean:
            _submit(bundle, clean, valve, services)
        elif jobs:
            valve.release(bundle)
    except MaskdropError as error:
        failure = _undo(bundle, jobs, valve, services) or error
    if isinstance(failure, EndpointUnavailable):
        raise failure
    errors: dict[str, MaskdropError | None] = {}
    if not failure:
        returned = in_threads(lambda one: _withhold(bundle, *one, valve=valve, services=services), withheld)
        errors = {job.id: error for (job, _), error in zip(withheld, returned, strict=True)}
    return [errors.get(claim.id, failure) if isinstance(claim, Job) else claim for claim in claims]


def _scan(job: Job, valve: Valve, services: Services) -> MaskdropError | Literal["no result"] | None:
    """Why a claimed job must not be submitted; None where its files are clean."""
    if job.stage != "segment":  # its files were clean in the first stage
        return None
    try:
        return None if malware.is_clean(job, valve.settings.inbox, services.storage, valve.now) else "no result"
    except MaskdropError as error:
        return error


def _withhold(
    bundle: str, job: Job, found: MaskdropError | Literal["no result"], *, valve: Valve, services: Services
) -> MaskdropError | None:
    """Fails a claimed job whose files the scan refuses, or queues it again without the attempt. Returns the error for
    which its message must be redelivered.

    The event is published before the record is written. If the function ends in between, both are repeated.
    """
    now = valve.now
    try:
        if isinstance(found, InputError | SourceError):
            failed = replace(job, state="failed", error=found.info, changed_at=now, finished_at=now)
            services.events.publish([failed])
            services.jobs.fail(job.id, found.info, bundle=bundle, now=now)
            return None
        queued = services.jobs.requeue(job.id, bundle=bundle, now=now, give_back=True)
        if isinstance(found, MaskdropError):
            return found
        send_messages([queued] if queued else [], services, delay_s=malware.delay_of(job, now))
    except MaskdropError as error:
        return error
    return None


def _submit(bundle: str, jobs: Sequence[Job], valve: Valve, services: Services) -> None:
    """Raises EndpointUnavailable where the endpoint or its queue refuses the bundle, Unavailable for other errors."""
    results, key = valve.settings.results, f"{BUNDLES_PREFIX}{bundle}.json"
    body = bundle_of(bundle, jobs, results, valve.settings.editor).to_bytes()
    services.storage.write(results, key, body, "application/json")
    valve.hold(bundle, len(jobs), Counter(group_of(job.owner) for job in jobs if job.owner))
    try:
        services.endpoint.submit(bundle, f"s3://{results}/{key}")
    except Unavailable as error:
        raise EndpointUnavailable(error.message) from error


def _undo(bundle: str, jobs: Sequence[Job], valve: Valve, services: Services) -> MaskdropError | None:
    """Queues the jobs of a bundle that was not submitted, without the attempt. Returns the error where that fails."""
    try:
        in_threads(lambda job: services.jobs.requeue(job.id, bundle=bundle, now=valve.now, give_back=True), jobs)
        valve.release(bundle)
    except MaskdropError as error:
        return error
    return None


def _claim(one: Job | JobMessage, bundle: str, services: Services, now: datetime) -> Job | MaskdropError | None:
    """Returns the claimed job, None for a duplicate, or the error of the claim."""
    try:
        if isinstance(one, JobMessage):
            return services.jobs.take(one.job_id, bundle=bundle, now=now, abandoned=now - LEASE)
        job = replace(one, state="submitted", bundle=bundle, attempts=1)
        if services.jobs.claim(job):
            return job
        # The job exists: a duplicate event, an earlier submission that was returned to the queue or crashed, or this
        # very claim, whose response the SDK did not receive.
        return services.jobs.take(job.id, bundle=bundle, now=now, abandoned=now - LEASE)
    except MaskdropError as error:
        return error


def record_bundle(notification: Notification, settings: Settings, services: Services, now: datetime) -> str:
    """Records the outcomes of a bundle: each of its jobs is done, failed, or queued for another attempt or for the next
    stage of its edit. Returns the failure of the endpoint, "" where there is none: a response that is cut off or
    unreadable is a failure."""
    if not notification.completed:
        return _requeue_failed(notification, notification.reason, settings, services, now)
    Valve(services.registry, settings, now).release(notification.bundle)
    body = services.storage.read(*split_s3_uri(notification.output))
    try:
        response = BundleResponse.from_bytes(body)
    except (ValueError, KeyError, TypeError) as error:
        return _requeue_failed(notification, f"its response is unreadable: {error!r}", settings, services, now)

    def record_outcome(outcome: Outcome) -> Job | None:
        usd = cost(response, outcome)
        if outcome.next_stage:
            moved = services.jobs.advance(
                outcome.id, outcome.next_stage, bundle=response.bundle, now=now, outcome=outcome, cost_usd=usd
            )
            send_messages([moved] if moved else [], services)
            return moved
        if outcome.error is None:
            if any(item.seed is not None for item in outcome.results):
                outcome, usd = _composed(outcome, usd, response.bundle, services)
            return services.jobs.done(outcome.id, outcome, bundle=response.bundle, cost_usd=usd, now=now)
        # Access to a file that was replaced after its scan was checked is denied until the new version is scanned.
        denied = settings.malware_scan and outcome.error.code == NotAllowed.code
        if outcome.error.retryable or denied:
            return retry_or_fail(outcome.id, outcome.error, response.bundle, settings, services, now)
        return services.jobs.fail(outcome.id, outcome.error, bundle=response.bundle, now=now)

    _publish_finished(in_threads(record_outcome, response.outcomes), services)
    return ""


def _requeue_failed(
    notification: Notification, reason: str, settings: Settings, services: Services, now: datetime
) -> str:
    """Queues the jobs of a bundle again. Returns the reason, which is not empty."""
    reason = reason or "no reason is given"
    error = ErrorInfo("endpoint_failed", f"The endpoint failed: {reason[:500]}", True)
    requeue_bundle(notification, error, settings, services, now)
    return reason


def _composed(outcome: Outcome, usd: float | None, bundle: str, services: Services) -> tuple[Outcome, float | None]:
    """Adds the subject, warnings, timings and cost of the earlier stages to the outcome of a composed edit.
    Repeatable: a job that this bundle has finished has them already."""
    job = services.jobs.get(outcome.id)
    if job is None:
        return outcome, usd
    merged = replace(
        outcome,
        subject=outcome.subject or job.subject,
        warnings=tuple(dict.fromkeys((*job.warnings, *outcome.warnings))),
        timings=job.timings | outcome.timings,
    )
    return merged, job.cost_usd if job.state == "done" and job.bundle == bundle else total(job.cost_usd, usd)


def requeue_bundle(
    notification: Notification, error: ErrorInfo, settings: Settings, services: Services, now: datetime
) -> None:
    """Queues every job of a failed bundle again. The container finds results that exist and does not compute them
    twice.

    A bundle that no container received costs no attempt. Like a refusal it pauses submissions, so that an endpoint that
    fails at once does not get all its bundles again at once.
    """
    valve = Valve(services.registry, settings, now)
    valve.release(notification.bundle)
    bundle = Bundle.from_bytes(services.storage.read(*split_s3_uri(notification.input)))
    unstarted_delay_s = None if _has_started(bundle.id, settings, services) else valve.pause()

    def requeue(item: Item) -> Job | None:
        return retry_or_fail(item.id, error, bundle.id, settings, services, now, unstarted_delay_s)

    _publish_finished(in_threads(requeue, bundle.items), services)


def _has_started(bundle: str, settings: Settings, services: Services) -> bool:
    """Whether a container has received the bundle. False for "": the job was never submitted."""
    return bool(bundle) and services.storage.head(settings.results, f"{STARTED_PREFIX}{bundle}") is not None


def _publish_finished(jobs: Iterable[Job | None], services: Services) -> None:
    services.events.publish([job for job in jobs if job and job.finished_at])


def retry_or_fail(
    job_id: str,
    error: ErrorInfo,
    bundle: str,
    settings: Settings,
    services: Services,
    now: datetime,
    unstarted_delay_s: int | None = None,
) -> Job | None:
    """Queues a job for another attempt, or fails it after the last one. None where another bundle has claimed it.

    Repeatable: a job that this bundle has already finished is returned again, since its event may not be published.

    unstarted_delay_s: delay in seconds where no container received the bundle. The attempt does not count then.
    """
    job = services.jobs.requeue(job_id, bundle=bundle, now=now, give_back=unstarted_delay_s is not None)
    if job is None:
        known = services.jobs.get(job_id)
        return known if known and known.finished_at and known.bundle == bundle else None
    attempts_max = STORAGE_ATTEMPTS if error.code == StorageUnavailable.code else settings.max_attempts
    if unstarted_delay_s is None and job.attempts >= attempts_max:
        final = AttemptsExhausted(f"The job failed after {job.attempts} attempts. Last error: {error.message}")
        return services.jobs.fail(job_id, final.info, bundle=bundle, now=now)
    send_messages([job], services, delay_s=delay_of(job.attempts) if unstarted_delay_s is None else unstarted_delay_s)
    return job


def delay_of(attempts: int) -> int:
    """Seconds before the attempt after `attempts` failed ones."""
    return DELAY_S[min(max(attempts, 1), len(DELAY_S)) - 1]


def sweep(
    settings: Settings, services: Services, now: datetime, *, limit: int = 1000, delay_s: int = DELAY_MAX_S
) -> int:
    """Queues jobs again whose last change is longer ago than `overdue_s`, the oldest first, at most `limit` of each
    state. Returns their number.

    Queued jobs are left alone while their messages may be delayed: each sweep would add a message to those.

    delay_s: delay of the messages of jobs that no container has received. 0 where all earlier messages are lost.
    """
    since = now - timedelta(seconds=settings.overdue_s)
    error = ErrorInfo(
        "overdue", f"The endpoint returned no response within {settings.overdue_s} seconds.", retryable=True
    )
    delayed = delay_s > 0 and Valve(services.registry, settings, now).has_delayed_messages()
    states: tuple[State, ...] = ("submitted",) if delayed else ("queued", "submitted")
    late = [job for state in states for job in services.jobs.overdue(state, since=since, limit=limit)]
    bundles = sorted({job.bundle for job in late})
    started = dict(zip(bundles, in_threads(lambda one: _has_started(one, settings, services), bundles), strict=True))

    def requeue(job: Job) -> Job | None:
        unstarted_delay_s = None if started[job.bundle] else delay_s
        moved = retry_or_fail(job.id, error, job.bundle, settings, services, now, unstarted_delay_s)
        _publish_finished([moved], services)  # at once: no later sweep finds a failed job
        return moved

    return sum(job is not None for job in in_threads(requeue, late))


def fail_dead_letters(waiting: Iterable[Job | JobMessage], reason: str, services: Services, now: datetime) -> None:
    """Fails jobs whose messages reached the dead-letter queue. Submitted and finished jobs are unchanged.

    Repeatable: the event of a job that has failed for this reason is published again.
    """
    error = AttemptsExhausted(reason).info
    failed: list[Job | None] = []
    for one in waiting:
        if isinstance(one, Job):
            dead = replace(one, state="failed", error=error, finished_at=now)
            if services.jobs.claim(dead):
                failed.append(dead)
                continue
        job = services.jobs.get(one.job_id if isinstance(one, JobMessage) else one.id)
        if job and (job.state == "queued" or job.error == error):
            failed.append(services.jobs.fail(job.id, error, bundle=job.bundle, now=now))
    _publish_finished(failed, services)


def cost(response: BundleResponse, outcome: Outcome) -> float | None:
    """Cost of one image of a bundle in US dollars: its share of the instance's price, the paid services that the
    container called for it, and the other services. None where nothing is billed."""
    share = response.usd_per_item
    return total(None if share is None else share + SERVICES_USD, outcome.cost_usd or None)


def total(*parts: float | None) -> float | None:
    """The sum of costs. None where nothing is billed."""
    billed = [part for part in parts if part is not None]
    return sum(billed) if billed else None
