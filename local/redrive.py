"""Retries jobs of a deployment in bulk, with the rules of `POST /v1/jobs/{id}/retry`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.queue import SqsQueue
from lambdas.adapters.registry import DynamoDBRegistry
from local.keys import connection
from maskdrop.errors import InvalidPreset, JobNotFailed
from maskdrop.flow import retry
from maskdrop.job import Job
from maskdrop.presets import Presets
from maskdrop.services import Jobs, Queue, RetryServices, Selection
from maskdrop.threads import in_threads

PAGE = 100
"""Jobs of one page: about 15 requests for each of the threads."""

KEEP_DAYS = 90
"""Required by the adapter, and not used: only finished jobs expire, and a retry finishes none."""


@dataclass(frozen=True, slots=True)
class JobServices:
    """The table and the queues of the jobs of one deployment, and its presets."""

    jobs: Jobs
    jobs_queue: Queue
    edits_queue: Queue
    presets: Presets


@dataclass(slots=True)
class Progress:
    """matched: selected jobs. retried: jobs that were queued. skipped: number of other jobs by the reason."""

    matched: int = 0
    retried: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


def redrive(
    services: RetryServices,
    selection: Selection,
    *,
    code: str = "",
    dry_run: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Progress]:
    """Retries the selected jobs, page by page, and yields the progress after each page.

    May be interrupted and repeated: a retried job is no longer failed, and a job that fails again is not retried twice
    in one run, because pages go from the latest change to the earliest.

    code: only jobs with this error code. dry_run: counts the jobs and changes none. Raises Unavailable.
    """
    progress, before, more = Progress(), "", True
    while more:
        page = services.jobs.page(selection, before=before, limit=PAGE)
        jobs = [job for job in page.jobs if not code or (job.error and job.error.code == code)]
        progress.matched += len(jobs)
        if not dry_run:
            reasons = Counter(in_threads(lambda job: _retry(job, services, clock()), jobs))
            progress.retried += reasons.pop("", 0)
            progress.skipped += reasons
        yield progress
        before, more = page.before, page.before != ""


def _retry(job: Job, services: RetryServices, now: datetime) -> str:
    """Returns the reason for which a job cannot be retried; "" if it is queued."""
    try:
        retry(job, services, now)
    except (JobNotFailed, InvalidPreset) as error:
        return error.message
    return ""


@contextmanager
def job_services(stage: str | None) -> Iterator[JobServices]:
    """Yields the services of a stage in the user's account, or of the local stack when `stage` is None.

    Raises LocalError, as `local.keys.connection` does.
    """
    with connection(stage) as (outputs, make_client):
        dynamodb = make_client("dynamodb")
        registry = DynamoDBRegistry(dynamodb, outputs["RegistryTable"])
        yield JobServices(
            JobsTable(dynamodb, outputs["JobsTable"], keep_days=KEEP_DAYS),
            SqsQueue(make_client("sqs"), outputs["JobsQueueUrl"]),
            SqsQueue(make_client("sqs"), outputs["EditsQueueUrl"]),
            Presets(lambda: registry.list("preset")),
        )
