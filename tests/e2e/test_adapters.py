"""Runs the same checks on the in-memory fake of the jobs table, on SQLite and on DynamoDB.

So tests can use the fake. Also tests the adapters of S3 and SQS.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from lambdas.adapters import dynamodb_json
from lambdas.adapters.queue import SqsQueue
from lambdas.adapters.storage import S3Storage
from local.connect import client
from maskdrop.edit import Candidate, Stage
from maskdrop.errors import ErrorInfo, QueueUnavailable, SourceMissing, StorageUnavailable
from maskdrop.job import STATES, Job, State, dropped
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.services import Jobs, Selection
from standalone.database import Database
from standalone.jobs import SqliteJobs
from tests.e2e.conftest import Running
from tests.fakes import NOW, FakeJobs, a_source, a_success, minutes_later

ERROR = ErrorInfo("unreadable_picture", "It is broken.", False)


@pytest.fixture(params=["fake", "sqlite", "dynamodb"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Jobs:
    if request.param == "fake":
        return FakeJobs()
    if request.param == "sqlite":
        return SqliteJobs(Database(tmp_path))
    running: Running = request.getfixturevalue("running")
    return running.jobs


def a_job(state: str = "submitted", bundle: str = "b1", now: datetime = NOW) -> Job:
    job = dropped(a_source(f"inbox/default/{uuid.uuid4().hex} ü.jpg"), now)
    return replace(job, state=state, bundle=bundle, attempts=1)  # type: ignore[arg-type]


def test_get_returns_a_claimed_job_unchanged(jobs: Jobs) -> None:
    job = a_job()
    assert jobs.claim(job)
    assert jobs.get(job.id) == job


def test_a_job_can_be_claimed_only_once(jobs: Jobs) -> None:
    job = a_job()
    assert jobs.claim(job)
    assert not jobs.claim(replace(job, bundle="b2"))
    assert jobs.get(job.id) == job


CANDIDATES = (Candidate(1, "a beach", 7, "a-model", 0.07), Candidate(2, "a forest", 4_294_967_294, "a-model", 0.07))


def test_a_job_advances_through_the_stages_of_its_edit(jobs: Jobs) -> None:
    job = a_job()
    jobs.claim(job)
    outcome = replace(a_success(job.id), result=None, next_stage="edit")
    assert jobs.advance(job.id, "edit", bundle="other", now=NOW, outcome=outcome) is None
    assert jobs.advance(job.id, "compose", bundle="b1", now=NOW) is None  # not from "segment"
    edit = replace(
        job,
        state="queued",
        stage="edit",
        attempts=0,
        subject=outcome.subject,
        warnings=outcome.warnings,
        timings=outcome.timings,
        cost_usd=0.002,
        changed_at=minutes_later(1),
    )
    for _ in range(2):  # a notification may be delivered twice
        assert jobs.advance(job.id, "edit", bundle="b1", now=minutes_later(1), outcome=outcome, cost_usd=0.002) == edit
    assert jobs.take(job.id, bundle="b2", now=NOW, abandoned=NOW) is None  # the container has no part in this stage
    partly = jobs.advance(job.id, "edit", bundle="b1", now=minutes_later(2), candidates=CANDIDATES[:1], cost_usd=0.072)
    assert partly == replace(edit, candidates=CANDIDATES[:1], cost_usd=0.072, changed_at=minutes_later(2))
    compose = jobs.advance(job.id, "compose", bundle="b1", now=minutes_later(3), candidates=CANDIDATES)
    assert compose == replace(partly, stage="compose", candidates=CANDIDATES, changed_at=minutes_later(3))
    assert jobs.advance(job.id, "edit", bundle="b1", now=NOW, outcome=outcome) is None  # a late duplicate
    taken = jobs.take(job.id, bundle="b2", now=minutes_later(4), abandoned=NOW)
    assert taken
    assert (taken.stage, taken.attempts, taken.candidates) == ("compose", 1, CANDIDATES)


@pytest.mark.parametrize(("stage", "candidates"), [("edit", CANDIDATES[:1]), ("segment", ())])
def test_a_retried_job_is_in_the_stage_of_the_retry(
    jobs: Jobs, stage: Stage, candidates: tuple[Candidate, ...]
) -> None:
    job = a_job()
    jobs.claim(job)
    jobs.advance(job.id, "edit", bundle="b1", now=NOW, candidates=CANDIDATES[:1])
    failed = jobs.fail(job.id, ERROR, bundle="b1", now=NOW)
    assert failed
    assert jobs.advance(job.id, "edit", bundle="b1", now=NOW) is None
    again = jobs.retry(replace(failed, stage=stage, candidates=candidates), now=minutes_later(1))
    assert again
    assert (again.state, again.stage, again.candidates, again.error) == ("queued", stage, candidates, None)
    assert jobs.get(job.id) == again


def test_every_operation_on_an_unknown_job_returns_none(jobs: Jobs) -> None:
    unknown = uuid.uuid4().hex
    assert jobs.get(unknown) is None
    assert jobs.take(unknown, bundle="b", now=NOW, abandoned=NOW) is None
    assert jobs.requeue(unknown, bundle="b", now=NOW) is None
    assert jobs.done(unknown, a_success(unknown), bundle="b", cost_usd=None, now=NOW) is None
    assert jobs.fail(unknown, ERROR, bundle="b", now=NOW) is None
    assert jobs.advance(unknown, "edit", bundle="b", now=NOW) is None
    assert jobs.get(unknown) is None


def test_only_one_bundle_can_take_a_queued_job(jobs: Jobs) -> None:
    job = a_job("queued", "")
    jobs.claim(job)
    taken = jobs.take(job.id, bundle="b2", now=minutes_later(1), abandoned=NOW)
    assert taken == replace(job, state="submitted", bundle="b2", attempts=2, changed_at=minutes_later(1))
    assert jobs.take(job.id, bundle="b3", now=minutes_later(2), abandoned=minutes_later(1)) is None
    assert jobs.get(job.id) == taken
    assert jobs.take(job.id, bundle="b2", now=minutes_later(1), abandoned=NOW) == taken  # sent again by the SDK


def test_another_bundle_can_take_a_job_submitted_before_the_abandoned_time_in_the_same_attempt(jobs: Jobs) -> None:
    job = a_job("submitted", "b1")
    jobs.claim(job)
    taken = jobs.take(job.id, bundle="b2", now=minutes_later(9), abandoned=minutes_later(1))
    assert taken == replace(job, bundle="b2", changed_at=minutes_later(9))
    assert jobs.requeue(job.id, bundle="b1", now=minutes_later(9)) is None


def test_no_bundle_can_take_a_finished_job(jobs: Jobs) -> None:
    job = a_job("submitted", "b1")
    jobs.claim(job)
    jobs.fail(job.id, ERROR, bundle="b1", now=NOW)
    assert jobs.take(job.id, bundle="b2", now=minutes_later(9), abandoned=minutes_later(1)) is None


def test_only_the_current_bundle_of_a_job_can_return_it_to_the_queue(jobs: Jobs) -> None:
    job = a_job()
    jobs.claim(job)
    assert jobs.requeue(job.id, bundle="other", now=NOW) is None
    assert jobs.requeue(job.id, bundle="b1", now=minutes_later(1)) == replace(
        job, state="queued", changed_at=minutes_later(1)
    )


def test_a_job_gets_the_attempt_of_a_submission_back_once(jobs: Jobs) -> None:
    job = a_job()
    jobs.claim(job)
    assert jobs.requeue(job.id, bundle="other", now=NOW, give_back=True) is None
    for minutes in (1, 2):
        assert jobs.requeue(job.id, bundle="b1", now=minutes_later(minutes), give_back=True) == replace(
            job, state="queued", attempts=0, changed_at=minutes_later(minutes)
        )
    jobs.fail(job.id, ERROR, bundle="b1", now=NOW)
    assert jobs.requeue(job.id, bundle="b1", now=NOW, give_back=True) is None


@pytest.mark.parametrize("cost", [None, 0.0000812, 1e-07])
def test_a_done_job_has_all_fields_of_its_outcome(jobs: Jobs, cost: float | None) -> None:
    job = a_job()
    jobs.claim(job)
    outcome = a_success(job.id)
    done = jobs.done(job.id, outcome, bundle="b1", cost_usd=cost, now=minutes_later(1))
    assert done == replace(
        job,
        state="done",
        result=outcome.result,
        subject=outcome.subject,
        warnings=outcome.warnings,
        timings=outcome.timings,
        cost_usd=cost,
        changed_at=minutes_later(1),
        finished_at=minutes_later(1),
    )
    assert jobs.get(job.id) == done


def test_a_job_accepts_the_first_result_of_any_bundle(jobs: Jobs) -> None:
    job = a_job()
    jobs.claim(job)
    for _ in range(2):
        assert jobs.done(job.id, a_success(job.id), bundle="late", cost_usd=None, now=NOW)
    assert jobs.done(job.id, a_success(job.id), bundle="b1", cost_usd=None, now=NOW) is None


def test_recording_the_same_outcome_twice_succeeds(jobs: Jobs) -> None:
    succeeding, failing = a_job(), a_job()
    for job in (succeeding, failing):
        jobs.claim(job)
    for _ in range(2):
        assert jobs.done(succeeding.id, a_success(succeeding.id), bundle="b1", cost_usd=None, now=NOW)
        assert jobs.fail(failing.id, ERROR, bundle="b1", now=NOW)


def test_a_failure_of_a_previous_bundle_is_ignored(jobs: Jobs) -> None:
    job = a_job(bundle="now")
    jobs.claim(job)
    assert jobs.fail(job.id, ERROR, bundle="before", now=NOW) is None
    assert jobs.get(job.id) == job


def test_a_finished_job_never_changes_to_the_other_final_state(jobs: Jobs) -> None:
    failed, done = a_job(), a_job()
    for job in (failed, done):
        jobs.claim(job)
    jobs.fail(failed.id, ERROR, bundle="b1", now=NOW)
    jobs.done(done.id, a_success(done.id), bundle="b1", cost_usd=None, now=NOW)
    assert jobs.done(failed.id, a_success(failed.id), bundle="b1", cost_usd=None, now=NOW) is None
    assert jobs.fail(done.id, ERROR, bundle="b1", now=NOW) is None


def test_a_retried_job_has_no_data_of_its_previous_attempt(jobs: Jobs) -> None:
    job = a_job("submitted", "b1")
    jobs.claim(job)
    jobs.fail(job.id, ERROR, bundle="b1", now=minutes_later(1))
    other = Options(output=Output(format="webp"))
    queued = jobs.retry(replace(job, preset="webp", options=other), now=minutes_later(2))
    fresh = replace(job, preset="webp", options=other, bundle="", attempts=0)
    assert queued == replace(fresh, state="queued", changed_at=minutes_later(2))
    assert jobs.get(job.id) == queued
    assert jobs.fail(job.id, ERROR, bundle="b1", now=minutes_later(3)) is None
    taken = jobs.take(job.id, bundle="b2", now=minutes_later(3), abandoned=NOW)
    assert taken
    assert taken.attempts == 1


@pytest.mark.parametrize("state", [state for state in STATES if state != "failed"])
def test_only_a_failed_job_can_be_retried(jobs: Jobs, state: str) -> None:
    job = a_job(state)
    jobs.claim(job)
    assert jobs.retry(job, now=NOW) is None
    assert jobs.retry(a_job(), now=NOW) is None
    assert jobs.get(job.id) == job


def test_a_job_is_deleted_only_in_the_expected_state(jobs: Jobs) -> None:
    job = a_job("queued")
    jobs.claim(job)
    assert not jobs.delete(job.id, state="done")
    assert jobs.get(job.id) == job
    for _ in range(2):
        assert jobs.delete(job.id, state="queued")
    assert jobs.get(job.id) is None


def test_pages_list_jobs_newest_first(jobs: Jobs) -> None:
    made = [a_job("queued", now=minutes_later(-1000 + number)) for number in range(5)]
    for job in made:
        jobs.claim(job)
    ids = {job.id for job in made}
    first = jobs.page(Selection(state="queued"), before=made[4].recency, limit=2)
    assert [job.id for job in first.jobs if job.id in ids] == [made[3].id, made[2].id]
    second = jobs.page(Selection(state="queued"), before=first.before, limit=10)
    assert [job.id for job in second.jobs if job.id in ids] == [made[1].id, made[0].id]


@pytest.fixture
def owned(jobs: Jobs) -> list[Job]:
    """Nine jobs of one owner, one minute apart, in all states, with keys in two folders; newest first."""
    owner = uuid.uuid4().hex
    made = []
    for number in range(9):
        job = a_job(STATES[number % 4], now=minutes_later(number))
        folder = f"uploads/{'ab'[number % 2]}/{uuid.uuid4().hex}.jpg"
        made.append(replace(job, owner=owner, source=replace(job.source, key=folder)))
        jobs.claim(made[-1])
    return made[::-1]


@pytest.mark.parametrize("limit", [1, 2, 4, 9, 50])
@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), lambda _: True),
        (Selection(state="done"), lambda job: job.state == "done"),
        (Selection(prefix="uploads/b/"), lambda job: job.source.key.startswith("uploads/b/")),
        (Selection(since=minutes_later(2)), lambda job: job.changed_at >= minutes_later(2)),
        (Selection(until=minutes_later(2)), lambda job: job.changed_at < minutes_later(2)),
        (
            Selection(state="queued", prefix="uploads/a/", since=minutes_later(1), until=minutes_later(8)),
            lambda job: job.changed_at == minutes_later(4),
        ),
        (Selection(since=minutes_later(3), until=minutes_later(3)), lambda _: False),
    ],
)
def test_the_pages_of_an_owner_have_each_selected_job_once_in_order(
    jobs: Jobs, owned: list[Job], selection: Selection, wanted: Callable[[Job], bool], limit: int
) -> None:
    seen: list[Job] = []
    before = None
    while before != "":
        page = jobs.page(replace(selection, owner=owned[0].owner), before=before or "", limit=limit)
        assert len(page.jobs) <= limit
        seen += page.jobs
        before = page.before
    assert seen == [job for job in owned if wanted(job)]


def test_jobs_of_all_owners_and_states_form_one_ordered_list(jobs: Jobs, owned: list[Job]) -> None:
    unowned = replace(a_job("done", now=minutes_later(4.5)), owner="")
    jobs.claim(unowned)
    selection = Selection(since=minutes_later(0), until=minutes_later(60))
    ids = {job.id for job in [unowned, *owned]}
    seen: list[str] = []
    before = None
    while before != "":
        page = jobs.page(selection, before=before or "", limit=3)
        seen += [job.id for job in page.jobs if job.id in ids]
        before = page.before
    assert seen == [job.id for job in sorted([unowned, *owned], key=lambda job: job.recency, reverse=True)]
    assert jobs.get(unowned.id) == unowned


def test_overdue_jobs_are_listed_oldest_first(jobs: Jobs) -> None:
    made = [a_job("submitted", now=minutes_later(-100_000 + number)) for number in range(4)]
    for job in reversed(made):
        jobs.claim(job)
    late = jobs.overdue("submitted", since=made[3].changed_at, limit=100)
    assert [job.id for job in late if job.id in {job.id for job in made}] == [job.id for job in made[:3]]


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_oldest_overdue_jobs_come_first_whatever_their_shards(jobs: Jobs, limit: int) -> None:
    made = [a_job("submitted", now=minutes_later(-200_000 - number)) for number in range(20)]
    for job in made:
        jobs.claim(job)
    late = jobs.overdue("submitted", since=minutes_later(-200_000 + 1), limit=limit)
    ids = {job.id for job in made}
    assert len(late) <= limit
    wanted = [job.id for job in reversed(made)][:limit]
    assert [job.id for job in late if job.id in ids] == wanted
    for job in made:
        jobs.delete(job.id, state="submitted")


@pytest.mark.parametrize("state", STATES)
def test_a_record_of_a_version_without_shards_is_listed_and_changed(running: Running, state: State) -> None:
    job = replace(a_job(state, now=minutes_later(-300_000)), owner=uuid.uuid4().hex)
    item = dynamodb_json.write({**job.to_json(), "recency": job.recency})
    client(running.config, "dynamodb").put_item(TableName=running.stack.table, Item=item)
    jobs = running.jobs
    assert jobs.get(job.id) == job
    assert jobs.overdue(state, since=minutes_later(-299_999), limit=10) == [job]
    for selection in (Selection(state=state, until=minutes_later(-299_999)), Selection(owner=job.owner, state=state)):
        assert jobs.page(selection, before="", limit=10).jobs == [job]
    match state:
        case "queued":
            assert jobs.take(job.id, bundle="b2", now=NOW, abandoned=NOW)
        case "submitted":
            assert jobs.requeue(job.id, bundle="b1", now=NOW)
        case "failed":
            assert jobs.retry(job, now=NOW)
        case "done":
            assert jobs.take(job.id, bundle="b2", now=NOW, abandoned=NOW) is None
            assert jobs.delete(job.id, state="done")
    assert jobs.overdue(state, since=minutes_later(-299_999), limit=10) == []


def test_reading_a_missing_object_raises_source_missing(running: Running) -> None:
    storage = S3Storage(client(running.config, "s3"))
    with pytest.raises(SourceMissing, match="does not exist"):
        storage.read(running.stack.results, "nothing/here")


def test_the_metadata_of_an_object_is_read_until_it_is_deleted(running: Running) -> None:
    storage, bucket, key = S3Storage(client(running.config, "s3")), running.stack.inbox, f"uploads/{uuid.uuid4().hex}"
    assert storage.head(bucket, key) is None
    storage.write(bucket, key, b"first", "image/png")
    first = storage.head(bucket, key)
    storage.write(bucket, key, b"second", "image/png")
    second = storage.head(bucket, key)
    assert first
    assert second
    assert (first.bytes, second.bytes, second.job) == (5, 6, "")
    assert first.version_id != second.version_id
    for _ in range(2):
        storage.delete(bucket, key)
    assert storage.head(bucket, key) is None


def test_a_missing_bucket_raises_storage_unavailable(running: Running) -> None:
    storage = S3Storage(client(running.config, "s3"))
    with pytest.raises(StorageUnavailable, match="NoSuchBucket"):
        storage.write("no-such-bucket-here", "key", b"", "text/plain")


def test_a_missing_queue_raises_queue_unavailable(running: Running) -> None:
    queue = SqsQueue(client(running.config, "sqs"), f"{running.stack.jobs_queue_url}-gone")
    with pytest.raises(QueueUnavailable):
        queue.send(["body"])


def test_more_messages_than_one_batch_are_all_sent(running: Running) -> None:
    sqs = client(running.config, "sqs")
    url = sqs.create_queue(QueueName=f"test-{uuid.uuid4().hex}")["QueueUrl"]
    SqsQueue(sqs, url).send([str(number) for number in range(23)])
    counted = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    assert counted["Attributes"]["ApproximateNumberOfMessages"] == "23"
