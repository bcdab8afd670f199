"""Reads what a deployment stores (photos, records, results, messages) for `maskdrop audit` and `maskdrop backfill`.

Both list pages of names; no image is downloaded, unless the audit compares digests.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from botocore.exceptions import ClientError

from lambdas.adapters.errors import code_of
from lambdas.adapters.jobs import JobsTable
from maskdrop.interactive import CUTOUTS_PREFIX
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, Job, Source, dropped
from maskdrop.reconcile import Finding, StoredResult, reconcile
from maskdrop.services import Queue
from maskdrop.threads import in_threads
from maskdrop.wire import RESULT_OF

LOST_AFTER = timedelta(hours=1)
"""Age of a photo from which it must have a record. S3 sends most events within seconds, and some within minutes; a
message is redelivered after 4 minutes where `ingest` was throttled."""

STUCK_AFTER = timedelta(hours=8)
"""Age of the last change from which an unfinished record is stuck: the sweep queues it again after
`Settings.overdue_s`, 6 hours and 20 minutes."""

PAGE = 100
"""Photos of one page of a backfill: the maximum number of keys of BatchGetItem."""

EVENTS = 10
"""Photos in one message of a backfill, as many as messages of S3 in one batch of the function `ingest`."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The stores of one deployment.

    queues: name -> URL of every queue. keep: time after which the first records and results expire.
    """

    s3: Any
    sqs: Any
    jobs: JobsTable
    inbox: str
    results: str
    queues: Mapping[str, str]
    keep: timedelta


@dataclass(frozen=True, slots=True)
class Audit:
    """The findings, and how many photos, records and results were compared."""

    findings: list[Finding]
    photos: int
    records: int
    results: int


def audit(deployed: Deployed, now: datetime, *, idle: bool = False, digests: bool = False) -> Audit:
    """Compares photos, records, results and messages of a deployment. Photos and results that may have expired are left
    out; records of photos that were deleted since are not.

    idle: no photo is being processed, so that every unfinished record and every message is a finding at any age.
        Otherwise only dead letters, and photos and records that are older than LOST_AFTER and STUCK_AFTER.
    digests: downloads every result and compares its SHA-256.
    """
    oldest, newest = now - deployed.keep, now if idle else now - LOST_AFTER
    photos = {
        dropped(source, now).id: source.key
        for source, uploaded_at in dropped_photos(deployed.s3, deployed.inbox, INBOX_PREFIX)
        if oldest < uploaded_at <= newest
    }
    records = [job for job in deployed.jobs.scan() if not job.finished_at or job.finished_at > oldest]
    # Listed after the records: a result exists before its record is done.
    results = _stored_results(deployed, records, oldest, started_at=now)
    if digests:
        results = _with_digests(deployed, results)
    queues = deployed.queues if idle else {"Dead": deployed.queues["Dead"]}
    findings = reconcile(
        photos,
        records,
        results,
        {name: messages_of(deployed.sqs, url) for name, url in queues.items()},
        settled_before=None if idle else now - STUCK_AFTER,
    )
    return Audit(findings, len(photos), len(records), len(results))


def dropped_photos(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[Source, datetime]]:
    """Yields the current version of every object of the drop folder below a prefix, and the time of its upload."""
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Versions", ()):
            if one["IsLatest"]:
                version = one["VersionId"] if one["VersionId"] != "null" else one["ETag"].strip('"')
                yield Source(bucket, one["Key"], version, one["Size"]), one["LastModified"].astimezone(UTC)


def backfill(
    deployed: Deployed, queue: Queue, prefix: str, now: datetime, *, dry_run: bool = False
) -> Iterator[tuple[int, int]]:
    """Sends an event for every photo below a prefix without a record, as S3 does for a new one. Yields the numbers of
    photos and of events so far, after each page.

    May be interrupted and repeated: the function `ingest` ignores the event of a photo that has a record.
    """
    seen = sent = 0
    photos = (source for source, _ in dropped_photos(deployed.s3, deployed.inbox, prefix))
    while page := list(itertools.islice(photos, PAGE)):
        sources = {dropped(source, now).id: source for source in page}
        known = deployed.jobs.known(list(sources))
        missing = [source for job_id, source in sources.items() if job_id not in known]
        if not dry_run:
            starts = range(0, len(missing), EVENTS)
            queue.send([event(missing[start : start + EVENTS]) for start in starts])
        seen, sent = seen + len(page), sent + len(missing)
        yield seen, sent


def event(sources: Sequence[Source]) -> str:
    """Returns an S3 notification of created objects (S3 user guide, "Event message structure"), with the fields that
    `maskdrop.wire.sources_of` reads."""
    records = [
        {
            "eventSource": "aws:s3",
            "eventName": "ObjectCreated:Backfill",
            "s3": {
                "bucket": {"name": source.bucket},
                "object": {"key": quote(source.key), "size": source.bytes, "versionId": source.version_id},
            },
        }
        for source in sources
    ]
    return json.dumps({"Records": records})


def _stored_results(
    deployed: Deployed, records: Iterable[Job], oldest: datetime, started_at: datetime
) -> dict[tuple[str, str], StoredResult]:
    """Returns the results of jobs in S3. A result that was written after the start of the audit is not compared with
    its record, which was read before."""
    recorded = {
        (one.bucket, one.key) for job in records for one in (job.result, *(item.result for item in job.results)) if one
    }
    found: dict[tuple[str, str], StoredResult] = {}
    unknown = []
    for page in deployed.s3.get_paginator("list_objects_v2").paginate(Bucket=deployed.results, Prefix=RESULTS_PREFIX):
        for one in page.get("Contents", ()):
            place, written_at = (deployed.results, one["Key"]), one["LastModified"].astimezone(UTC)
            if one["Key"].startswith(CUTOUTS_PREFIX):
                continue
            if place in recorded:
                found[place] = StoredResult(bytes=one["Size"]) if written_at < started_at else StoredResult()
            elif oldest < written_at < started_at:
                unknown.append(place)
    jobs = in_threads(lambda place: _job_of(deployed.s3, *place), unknown)
    return found | {place: StoredResult(job) for place, job in zip(unknown, jobs, strict=True) if job is not None}


def _job_of(s3: Any, bucket: str, key: str) -> str | None:
    """Returns the job of a result, by its metadata; None where it was deleted meanwhile."""
    try:
        metadata: dict[str, str] = s3.head_object(Bucket=bucket, Key=key)["Metadata"]
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchKey"):
            return None
        raise
    return metadata.get(RESULT_OF, "")


def _with_digests(
    deployed: Deployed, results: Mapping[tuple[str, str], StoredResult]
) -> dict[tuple[str, str], StoredResult]:
    def read(place: tuple[str, str]) -> StoredResult:
        stored = results[place]
        if stored.bytes is None:
            return stored
        response = deployed.s3.get_object(Bucket=place[0], Key=place[1])
        digest = hashlib.sha256()
        for chunk in response["Body"].iter_chunks(1 << 20):
            digest.update(chunk)
        return StoredResult(response["Metadata"].get(RESULT_OF, ""), response["ContentLength"], digest.hexdigest())

    return dict(zip(results, in_threads(read, results), strict=True))


def messages_of(sqs: Any, url: str) -> int:
    """Returns the number of messages of a queue: visible, being processed, and delayed. SQS counts approximately."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    names.append("ApproximateNumberOfMessagesDelayed")
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(map(int, counts.values()))
