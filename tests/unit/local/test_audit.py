from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from cli.audit import REPAIRS
from lambdas.adapters.jobs import JobsTable
from local.audit import LOST_AFTER, PAGE, STUCK_AFTER, Audit, Deployed, audit, backfill
from maskdrop.flow import parse_message
from maskdrop.job import Job, Source, dropped
from maskdrop.reconcile import MEANINGS
from maskdrop.wire import RESULT_OF, Outcome
from tests.fakes import NOW, SETTINGS, FakeQueue, World, a_success

KEEP = timedelta(days=30)
BEFORE = NOW - timedelta(days=1)


class FakeTable(JobsTable):
    """The two methods of the table that list records, over the fake jobs."""

    def __init__(self, world: World) -> None:
        self.world = world

    def scan(self) -> Iterator[Job]:
        yield from self.world.jobs.records.values()

    def known(self, ids: Any) -> set[str]:
        return {*ids} & self.world.jobs.records.keys()


class FakeS3:
    """photos: key -> (version, time). results: key -> (body, job, time). Lists one object a page."""

    def __init__(self) -> None:
        self.photos: dict[str, tuple[str, datetime]] = {}
        self.results: dict[str, tuple[bytes, str, datetime]] = {}
        self.downloads: list[str] = []

    def get_paginator(self, operation: str) -> Any:
        return Paginator(self.versions if operation == "list_object_versions" else self.objects)

    def versions(self) -> Iterator[dict[str, Any]]:
        for key, (version, moment) in sorted(self.photos.items()):
            one = {"Key": key, "VersionId": version, "Size": 10, "LastModified": moment, "IsLatest": True}
            yield {"Versions": [one, {**one, "VersionId": "0", "IsLatest": False}]}

    def objects(self) -> Iterator[dict[str, Any]]:
        for key, (body, _, moment) in sorted(self.results.items()):
            yield {"Contents": [{"Key": key, "Size": len(body), "LastModified": moment}]}

    def head_object(self, Bucket: str, Key: str) -> Any:  # noqa: N803
        return {"Metadata": {RESULT_OF: self.results[Key][1]}}

    def get_object(self, Bucket: str, Key: str) -> Any:  # noqa: N803
        self.downloads.append(Key)
        body, job, _ = self.results[Key]
        stream: Any = io.BytesIO(body)
        return {"Metadata": {RESULT_OF: job}, "ContentLength": len(body), "Body": Chunks(stream)}


class Paginator:
    """Yields the pages whose objects are below the prefix, and one without any."""

    def __init__(self, pages: Callable[[], Iterator[dict[str, Any]]]) -> None:
        self.pages = pages

    def paginate(self, Prefix: str, **_: Any) -> Iterator[dict[str, Any]]:  # noqa: N803
        for page in self.pages():
            ((first, *_others),) = page.values()
            if first["Key"].startswith(Prefix):
                yield page
        yield {}


class Chunks:
    def __init__(self, stream: io.BytesIO) -> None:
        self.stream = stream

    def iter_chunks(self, size: int) -> Iterator[bytes]:
        while chunk := self.stream.read(size):
            yield chunk


class FakeSqs:
    def __init__(self) -> None:
        self.counts = {"dead": 0, "jobs": 0}

    def get_queue_attributes(self, QueueUrl: str, AttributeNames: list[str]) -> Any:  # noqa: N803
        count = str(self.counts[QueueUrl])
        return {
            "Attributes": {name: count if name == "ApproximateNumberOfMessages" else "0" for name in AttributeNames}
        }


class Stage:
    """A deployment in memory."""

    def __init__(self) -> None:
        self.world, self.s3, self.sqs = World(), FakeS3(), FakeSqs()

    @property
    def deployed(self) -> Deployed:
        queues = {"Dead": "dead", "Jobs": "jobs"}
        return Deployed(self.s3, self.sqs, FakeTable(self.world), SETTINGS.inbox, SETTINGS.results, queues, KEEP)

    def photo(self, name: str, moment: datetime = BEFORE) -> Job:
        """Uploads a photo without an event; returns the job that its event would make."""
        key = f"inbox/{name}"
        self.s3.photos[key] = ("v1", moment)
        return dropped(Source(SETTINGS.inbox, key, "v1", 10), moment)

    def done(self, name: str, body: bytes = b"a cut-out", moment: datetime = BEFORE) -> Job:
        """Uploads a photo that is processed."""
        job = self.photo(name, moment)
        outcome: Outcome = a_success(job.id)
        assert outcome.result
        result = replace(outcome.result, key=job.result_key, bytes=len(body), sha256=hashlib.sha256(body).hexdigest())
        job = replace(job, state="done", result=result, finished_at=moment, changed_at=moment)
        self.world.jobs.claim(job)
        self.s3.results[result.key] = (body, job.id, moment)
        return job

    def audit(self, **options: bool) -> Audit:
        return audit(self.deployed, NOW, **options)

    def found(self, **options: bool) -> list[tuple[str, str]]:
        return [(one.kind, one.subject) for one in self.audit(**options).findings]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_stage_that_lost_nothing_has_no_findings(stage: Stage) -> None:
    for number in range(3):
        stage.done(f"{number}.jpg")
    assert stage.audit(idle=True, digests=True) == Audit([], photos=3, records=3, results=3)


def test_a_photo_without_a_record_is_lost_an_hour_after_its_upload(stage: Stage) -> None:
    old = stage.photo("old.jpg", NOW - LOST_AFTER)
    new = stage.photo("new.jpg", NOW - LOST_AFTER + timedelta(seconds=1))
    assert stage.found() == [("lost", old.id)]
    assert sorted(stage.found(idle=True)) == sorted([("lost", old.id), ("lost", new.id)])


def test_photos_and_results_whose_records_have_expired_are_left_out(stage: Stage) -> None:
    stage.photo("old.jpg", NOW - KEEP)
    stage.s3.results["results/old.jpg.png"] = (b"", "an expired job", NOW - KEEP)
    assert stage.found(idle=True) == []


def test_an_unfinished_record_is_stuck_once_the_sweep_must_have_queued_it_again(stage: Stage) -> None:
    assert timedelta(seconds=SETTINGS.overdue_s) < STUCK_AFTER
    job = stage.photo("a.jpg")
    stage.world.jobs.claim(replace(job, changed_at=NOW - STUCK_AFTER))
    assert stage.found() == []
    stage.world.jobs.records[job.id] = replace(job, changed_at=NOW - STUCK_AFTER - timedelta(seconds=1))
    assert stage.found() == [("stuck", job.id)]


def test_a_record_without_its_result_and_a_result_without_its_record_are_found(stage: Stage) -> None:
    first, second = stage.done("a.jpg"), stage.done("b.jpg")
    del stage.s3.results[first.result_key]
    del stage.world.jobs.records[second.id]
    del stage.s3.photos[second.source.key]
    assert stage.found() == [
        ("result_missing", first.id),
        ("result_without_record", f"s3://{SETTINGS.results}/{second.result_key}"),
    ]


def test_a_result_of_another_size_is_found_and_one_of_another_digest_by_downloading_it(stage: Stage) -> None:
    job = stage.done("a.jpg", b"abc")
    stage.s3.results[job.result_key] = (b"abd", job.id, BEFORE)
    assert stage.found() == []
    assert stage.s3.downloads == []
    assert stage.found(digests=True) == [("result_differs", job.id)]
    stage.s3.results[job.result_key] = (b"abcd", job.id, BEFORE)
    assert stage.found() == [("result_differs", job.id)]


def test_what_is_written_during_the_audit_is_no_finding(stage: Stage) -> None:
    job = stage.done("a.jpg", b"abc")
    stage.s3.results[job.result_key] = (b"a newer result", "a newer job", NOW)
    stage.s3.results["results/new.jpg.png"] = (b"", "a newer job", NOW)
    assert stage.found(digests=True) == []


def test_results_of_synchronous_requests_are_no_results_of_jobs(stage: Stage) -> None:
    stage.s3.results["results/cutouts/1.png"] = (b"", "", BEFORE)
    assert stage.found() == []


def test_dead_letters_are_findings_and_other_messages_only_of_an_idle_stage(stage: Stage) -> None:
    stage.sqs.counts = {"dead": 2, "jobs": 3}
    assert stage.found() == [("messages_left", "Dead")]
    assert stage.found(idle=True) == [("messages_left", "Dead"), ("messages_left", "Jobs")]


def test_every_kind_of_finding_has_a_repair() -> None:
    assert set(REPAIRS) == set(MEANINGS)


def test_a_backfill_sends_an_event_for_each_photo_without_a_record(stage: Stage) -> None:
    stage.done("summer/done.jpg")
    stage.photo("winter/other.jpg")
    jobs = [stage.photo(f"summer/ä {number}+.jpg") for number in range(PAGE + 5)]
    queue = FakeQueue()
    *_, last = backfill(stage.deployed, queue, "inbox/summer/", NOW, dry_run=True)
    assert (last, queue.sent) == ((PAGE + 6, PAGE + 5), [])
    *_, last = backfill(stage.deployed, queue, "inbox/summer/", NOW)
    assert last == (PAGE + 6, PAGE + 5)
    made = [job for body, _ in queue.sent for job in parse_message(body, NOW)]
    assert sorted(job.id for job in made if isinstance(job, Job)) == sorted(job.id for job in jobs)
    assert all(len(json.loads(body)["Records"]) <= 10 for body, _ in queue.sent)
    for job in jobs:
        stage.world.jobs.claim(job)
    *_, last = backfill(stage.deployed, queue, "inbox/summer/", NOW)
    assert last == (PAGE + 6, 0)
