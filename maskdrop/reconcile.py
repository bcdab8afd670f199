"""Reconciles the sources, records, results and messages of a deployment: finds lost, duplicate, stuck and wrong ones.

    accepted source ──exactly one──► record in a final state ──done──► result with the recorded digest
    result          ──exactly one──► record
    queue           ──────────────► empty

The caller lists them; this module only compares. It reads each record once, so that a caller may stream them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import Literal, NamedTuple

from maskdrop.job import Job, Result, State, is_newer

Kind = Literal[
    "lost",
    "duplicate",
    "stuck",
    "result_missing",
    "result_differs",
    "result_without_record",
    "result_of_failed_job",
    "messages_left",
]

MEANINGS: dict[Kind, str] = {
    "lost": "an accepted source has no record",
    "duplicate": "a dropped photo has more than one record",
    "stuck": "a record is neither done nor failed",
    "result_missing": "a record is done, and its result does not exist",
    "result_differs": "a record is done, and its result has another digest, size or job",
    "result_without_record": "a result exists whose job has no record",
    "result_of_failed_job": "a result exists, and its record is failed",
    "messages_left": "a queue still has messages",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement. subject: job ID, URI of the result, or name of the queue."""

    kind: Kind
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class StoredResult:
    """A result in S3.

    job: id of its job, from the object's metadata; "" where the metadata were not read.
    bytes: size of the object; None where unknown.
    sha256: of its bytes, in hexadecimal digits; "" where they were not read.
    """

    job: str = ""
    bytes: int | None = None
    sha256: str = ""


def reconcile(
    accepted: Mapping[str, str],
    records: Iterable[Job],
    results: Mapping[tuple[str, str], StoredResult],
    messages: Mapping[str, int],
    *,
    settled_before: datetime | None = None,
) -> list[Finding]:
    """Returns the findings, in the order of MEANINGS; none for a deployment that lost and duplicated nothing.

    accepted: id of the job of each accepted source -> name of the source. Sources that may still have no record, such
        as photos of the last minutes, must be left out; also those whose record has expired or was deleted.
    records: all records of jobs, in any order; those of other sources too.
    results: (bucket, key) -> result. Results of synchronous requests and files of edits are not results of jobs.
    messages: name of a queue -> number of its messages, visible or not.
    settled_before: an unfinished record whose last change is later is not stuck. None: every unfinished one is.
    """
    missing = dict(accepted)
    states: dict[str, State] = {}
    dropped: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    expected: defaultdict[tuple[str, str], list[_Expected]] = defaultdict(list)
    findings: list[Finding] = []
    for job in records:
        missing.pop(job.id, None)
        states[job.id] = job.state
        if not job.owner:
            dropped[job.source.bucket, job.source.key, job.source.version_id].append(job.id)
        if job.finished_at is None and (settled_before is None or job.changed_at < settled_before):
            since = f"{job.changed_at:%Y-%m-%d %H:%M:%S}"
            findings.append(Finding("stuck", job.id, f"{job.source.key} is {job.state} since {since} UTC."))
        for result in _results_of(job):
            expected[result.bucket, result.key].append(_Expected(job.id, job.source.sequencer, result))
    findings += [Finding("lost", job_id, f"{name} has no record.") for job_id, name in missing.items()]
    findings += [
        Finding("duplicate", ids[0], f"{key} (version {version}) has {len(ids)} records: {', '.join(ids)}.")
        for (_, key, version), ids in dropped.items()
        if len(ids) > 1
    ]
    for place, candidates in expected.items():
        findings += _check_expected(candidates, results.get(place))
    for place, stored in results.items():
        if place not in expected:
            findings += _check_unexpected(place, stored, states)
    findings += [
        Finding("messages_left", queue, f"The queue {queue} has {count} messages.")
        for queue, count in messages.items()
        if count
    ]
    order = list(MEANINGS)
    return sorted(findings, key=lambda finding: (order.index(finding.kind), finding.subject))


class _Expected(NamedTuple):
    """A result that a record which is done names."""

    job: str
    sequencer: str
    result: Result


def _results_of(job: Job) -> list[Result]:
    """The distinct results of a job that is done."""
    if job.state != "done":
        return []
    results = (job.result, *(item.result for item in job.results))
    return list({one.key: one for one in results if one}.values())


def _check_expected(candidates: Sequence[_Expected], stored: StoredResult | None) -> list[Finding]:
    """Compares the object at a key with the records that name it: several, where a photo was uploaded more than once.
    The object is of the newest upload."""
    newest = reduce(lambda one, other: other if is_newer(other.sequencer, one.sequencer) else one, candidates)
    known = {one.job: one for one in candidates}
    expected = known.get(stored.job, newest) if stored else newest
    place = uri(newest.result.bucket, newest.result.key)
    if stored is None:
        return [Finding("result_missing", newest.job, f"{place} does not exist.")]
    if is_newer(newest.sequencer, expected.sequencer):
        message = f"{place} is the result of the job {expected.job}, whose photo is older."
        return [Finding("result_differs", newest.job, message)]
    differences = [
        f"{name} is {found}; the record has {recorded}"
        for name, found, recorded in (
            ("the job", stored.job, expected.job),
            ("the size in bytes", stored.bytes, expected.result.bytes),
            ("the SHA-256", stored.sha256, expected.result.sha256),
        )
        if found not in ("", None, recorded)
    ]
    return [Finding("result_differs", expected.job, f"{place}: {', '.join(differences)}.")] if differences else []


def _check_unexpected(place: tuple[str, str], stored: StoredResult, states: Mapping[str, State]) -> list[Finding]:
    """The finding of a result that no record which is done names."""
    state = states.get(stored.job)
    if state is None:
        return [Finding("result_without_record", uri(*place), f"The job {stored.job or '(unknown)'} has no record.")]
    if state == "failed":
        return [Finding("result_of_failed_job", uri(*place), f"The record of the job {stored.job} is failed.")]
    if state == "done":
        return [Finding("result_without_record", uri(*place), f"The record of the job {stored.job} does not name it.")]
    return []  # the job is not finished: its result is about to be recorded, or the job is stuck


def uri(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"
