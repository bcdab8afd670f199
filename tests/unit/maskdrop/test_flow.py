from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from maskdrop.errors import (
    EndpointUnavailable,
    ErrorInfo,
    EventsUnavailable,
    InvalidPreset,
    JobInProgress,
    JobNotFailed,
    QueueUnavailable,
    StorageUnavailable,
    TableUnavailable,
)
from maskdrop.flow import (
    STORAGE_ATTEMPTS,
    admit,
    bundle_size,
    enqueue,
    fail_dead_letters,
    new_jobs,
    record_bundle,
    remove,
    requeue_bundle,
    retry,
    sweep,
)
from maskdrop.job import STATES, Job, Source, dropped, group_of, queued, uploads_of
from maskdrop.options import Options
from maskdrop.presets import Presets
from maskdrop.valve import DELAY_MAX_S, PAUSE_S
from maskdrop.wire import BUNDLE_MAX, JobMessage
from tests.fakes import NOW, World, a_failure, a_source, a_success, minutes_later


def photos(count: int) -> list[Job]:
    return new_jobs([a_source(f"inbox/default/{number}.jpg") for number in range(count)], NOW)


def submit(world: World, jobs: Sequence[Job | JobMessage]) -> None:
    assert admit(jobs, world.settings, world.services, NOW) == [None] * len(jobs)


def test_a_photo_is_claimed_and_submitted_in_a_bundle() -> None:
    world = World()
    (job,) = photos(1)
    submit(world, [job])
    (bundle,) = world.bundles()
    assert [item.id for item in bundle.items] == [job.id]
    record = world.jobs.records[job.id]
    assert (record.state, record.attempts, record.bundle) == ("submitted", 1, bundle.id)


def test_many_photos_share_bundles_of_at_most_64() -> None:
    world = World()
    submit(world, photos(150))
    assert sorted(len(bundle.items) for bundle in world.bundles()) == [22, 64, 64]


def test_a_duplicate_event_is_skipped() -> None:
    world = World()
    submit(world, photos(1))
    submit(world, photos(1))
    assert len(world.bundles()) == 1
    assert len(world.jobs.records) == 1


def test_a_photo_twice_in_one_batch_is_one_item() -> None:
    world = World()
    submit(world, photos(1) * 2)
    assert [len(bundle.items) for bundle in world.bundles()] == [1]


@pytest.mark.parametrize("known", [True, False])
def test_a_claim_that_the_sdk_sends_twice_is_submitted(known: bool) -> None:
    world = World()
    (job,) = photos(1)
    if known:
        world.jobs.claim(job)
    claim, take = world.jobs.claim, world.jobs.take

    def claim_twice(job: Job) -> bool:
        claim(job)
        return claim(job)

    def take_twice(*args: Any, **options: Any) -> Job | None:
        take(*args, **options)
        return take(*args, **options)

    world.jobs.claim, world.jobs.take = claim_twice, take_twice  # type: ignore[method-assign]
    submit(world, [job])
    assert [item.id for bundle in world.bundles() for item in bundle.items] == [job.id]
    assert world.jobs.records[job.id].attempts == 1


def test_a_new_version_of_a_photo_is_another_job() -> None:
    world = World()
    submit(world, new_jobs([a_source(version="v1"), a_source(version="v2")], NOW))
    assert len(world.jobs.records) == 2


@pytest.mark.parametrize(
    ("key", "size", "code"),
    [
        ("inbox/default/folder/", 0, "directory_marker"),
        ("inbox/default/empty.jpg", 0, "empty_file"),
    ],
)
def test_folder_markers_and_empty_files_fail_at_once_with_an_event(key: str, size: int, code: str) -> None:
    world = World()
    submit(world, new_jobs([a_source(key, size=size)], NOW))
    (record,) = world.jobs.records.values()
    assert record.state == "failed"
    assert record.error
    assert record.error.code == code
    assert world.bundles() == []
    assert world.events.published == [record]


def test_where_the_event_of_an_invalid_photo_cannot_be_published_it_is_redelivered_and_others_are_submitted() -> None:
    world = World()
    invalid = new_jobs([a_source("inbox/default/empty.jpg", size=0)], NOW)
    world.events.broken = EventsUnavailable("Publishing events failed.")
    errors = admit([*invalid, *photos(1)], world.settings, world.services, NOW)
    assert [error and error.code for error in errors] == ["events_unavailable", None]
    assert len(world.bundles()) == 1
    world.events.broken = None
    submit(world, invalid)
    assert [job.id for job in world.events.published] == [invalid[0].id]


def test_a_refused_bundle_costs_neither_an_attempt_nor_a_receive() -> None:
    world = World()
    world.endpoint.unavailable = True
    submit(world, photos(3))
    assert {(job.state, job.attempts) for job in world.jobs.records.values()} == {("queued", 0)}
    messages = [(JobMessage.from_body(body), delay) for body, delay in world.queue.sent]
    assert sorted(messages, key=repr) == sorted(
        ((JobMessage(job_id, 0, job_id), PAUSE_S) for job_id in world.jobs.records), key=repr
    )


def test_after_a_refusal_jobs_are_not_claimed_until_the_next_trial() -> None:
    world = World()
    world.endpoint.unavailable = True
    submit(world, photos(3))
    before = dict(world.jobs.records)
    world.endpoint.unavailable = False
    messages = [JobMessage.from_body(body) for body, _ in world.queue.sent]
    assert admit(messages, world.settings, world.services, minutes_later(0.9)) == [None] * 3
    assert world.jobs.records == before
    assert len(world.queue.sent) == 6
    assert admit(messages, world.settings, world.services, minutes_later(1)) == [None] * 3
    assert {(job.state, job.attempts) for job in world.jobs.records.values()} == {("submitted", 1)}


def test_the_bundles_after_a_refused_one_are_not_tried() -> None:
    world = World()
    refused = []

    def refuse(bundle_id: str, _: str) -> None:
        refused.append(bundle_id)
        raise EndpointUnavailable("Submitting to the endpoint failed: ValidationError.")

    world.endpoint.submit = refuse  # type: ignore[assignment,method-assign]
    submit(world, photos(200))
    assert len(refused) == 1
    assert {(job.state, job.attempts) for job in world.jobs.records.values()} == {("queued", 0)}
    assert len(world.queue.sent) == 200


def test_a_retried_job_keeps_the_size_of_its_bundle_when_it_is_refused() -> None:
    world = World()
    world.endpoint.unavailable = True
    retry(an_upload(world, "failed", attempts=5), world.services, NOW)
    submit(world, [JobMessage.from_body(world.queue.sent[0][0])])
    assert [JobMessage.from_body(body).attempts for body, _ in world.queue.sent] == [5, 5]


def test_the_delay_grows_with_the_duration_of_an_outage() -> None:
    world = World()
    world.endpoint.unavailable = True
    (job,) = photos(1)
    at, delays = 0.0, []
    while at < 120:
        assert admit([job], world.settings, world.services, minutes_later(at)) == [None]
        delays.append(world.queue.sent[-1][1])
        at += delays[-1] / 60
    assert delays == [60, 60, 120, 240, 480, *[DELAY_MAX_S] * (len(delays) - 5)]


def test_where_the_delayed_message_cannot_be_sent_the_message_is_redelivered() -> None:
    world = World()
    world.endpoint.unavailable = True
    world.queue.broken = QueueUnavailable("Sending to the queue failed: ServiceUnavailable.")
    errors = admit(photos(2), world.settings, world.services, NOW)
    assert [error and error.code for error in errors] == ["queue_unavailable"] * 2
    assert {(job.state, job.attempts) for job in world.jobs.records.values()} == {("queued", 0)}


def test_when_storage_is_unavailable_messages_are_redelivered_and_cost_no_attempt() -> None:
    world = World()

    def write(*_: object) -> None:
        raise StorageUnavailable("Writing an object failed: SlowDown.")

    world.storage.write = write  # type: ignore[assignment,method-assign]
    errors = admit(photos(2), world.settings, world.services, NOW)
    assert [error and error.code for error in errors] == ["storage_unavailable"] * 2
    assert {(job.state, job.attempts) for job in world.jobs.records.values()} == {("queued", 0)}
    assert world.queue.sent == []


def test_above_the_limit_of_the_backlog_photos_are_queued_and_their_users_see_them() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=100)
    submit(world, photos(150))
    assert [len(bundle.items) for bundle in world.bundles()] == [64]
    states = Counter((job.state, job.attempts) for job in world.jobs.records.values())
    assert states == {("submitted", 1): 64, ("queued", 0): 86}
    assert {delay for _, delay in world.queue.sent} == {PAUSE_S}
    assert len(world.queue.sent) == 86


@pytest.mark.parametrize("completed", [True, False])
def test_a_finished_bundle_makes_room_once(completed: bool) -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=128)
    submit(world, photos(150))
    first, _ = world.bundles()
    outcomes = [a_success(item.id) for item in first.items]
    notification = world.completed(first, outcomes) if completed else world.failed(first)
    for _ in range(2):
        record_bundle(notification, world.settings, world.services, NOW)
    waiting = photos(300)[150:]
    assert admit(waiting, world.settings, world.services, minutes_later(2)) == [None] * 150
    assert [len(bundle.items) for bundle in world.bundles()] == [64, 64, 64]


def test_a_bundle_whose_notification_is_lost_makes_room_when_it_has_expired() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=64)
    submit(world, photos(64))
    for seconds, bundles in ((world.settings.overdue_s - 1, 1), (world.settings.overdue_s, 2)):
        world.registry.now = minutes_later(seconds / 60)
        assert admit(photos(65)[64:], world.settings, world.services, world.registry.now) == [None]
        world.registry.delete("valve", "pause")
        assert len(world.bundles()) == bundles


def test_a_bundle_is_never_larger_than_the_backlog() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=10, bundle_max=16)
    submit(world, photos(15))
    assert [len(bundle.items) for bundle in world.bundles()] == [10]


def test_invalid_photos_fail_at_once_although_the_backlog_is_full() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=1)
    submit(world, [*photos(2), *new_jobs([a_source("inbox/default/empty.jpg", size=0)], NOW)])
    assert Counter(job.state for job in world.jobs.records.values()) == {"submitted": 1, "queued": 1, "failed": 1}


def test_a_redelivered_photo_whose_bundle_was_lost_waits_for_room_with_a_message() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=1)
    (job,) = photos(1)
    submit(world, [job])
    assert admit([job], world.settings, world.services, minutes_later(4)) == [None]
    ((body, _),) = world.queue.sent
    assert JobMessage.from_body(body) == JobMessage(job.id, 1, job.trace_id)


def test_a_duplicate_event_of_a_finished_photo_is_not_queued_while_the_backlog_is_full() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=1)
    done, other = photos(2)
    submit(world, [done])
    (bundle,) = world.bundles()
    record_bundle(world.completed(bundle, [a_success(done.id)]), world.settings, world.services, NOW)
    submit(world, [other])
    assert admit([done], world.settings, world.services, NOW) == [None]
    assert world.queue.sent == []


def test_while_the_sum_of_the_backlog_cannot_be_read_messages_are_redelivered() -> None:
    world = World()
    world.registry.broken = TableUnavailable("Listing the registry failed.")
    errors = admit(photos(2), world.settings, world.services, NOW)
    assert all(isinstance(error, TableUnavailable) for error in errors)
    assert world.jobs.records == {}


def test_when_ingest_crashes_between_claim_and_submission_the_redelivered_message_submits_the_photo() -> None:
    world = World()
    submit(world, photos(1))
    world.endpoint.submitted.clear()  # the bundle was never handed over
    (job,) = photos(1)
    assert admit([job], world.settings, world.services, minutes_later(2)) == [None]
    assert world.bundles() == []
    assert admit([job], world.settings, world.services, minutes_later(4)) == [None]
    assert [item.id for item in world.bundles()[0].items] == [job.id]


def test_when_the_table_is_unavailable_the_messages_are_redelivered_and_nothing_is_submitted() -> None:
    world = World()
    world.jobs.broken = TableUnavailable("Claiming a job failed: ThrottlingException.")
    errors = admit(photos(2), world.settings, world.services, NOW)
    assert all(isinstance(error, TableUnavailable) for error in errors)
    assert world.jobs.records == {}


def test_results_are_recorded_with_their_cost_and_an_event() -> None:
    world = World()
    submit(world, photos(2))
    (bundle,) = world.bundles()
    outcomes = [a_success(item.id) for item in bundle.items]
    record_bundle(world.completed(bundle, outcomes, usd_per_hour=3.6), world.settings, world.services, NOW)
    for outcome in outcomes:
        record = world.jobs.records[outcome.id]
        assert (record.state, record.result, record.subject) == ("done", outcome.result, outcome.subject)
        # 1 s of an instance of $3.60 an hour is $0.001, shared by two, and $0.018 per 1,000 for the services.
        assert record.cost_usd == pytest.approx(0.0005 + 1.8e-5)
    assert len(world.events.published) == 2


def test_where_nothing_is_billed_the_cost_is_unknown_and_not_zero() -> None:
    world = World()
    submit(world, photos(1))
    (bundle,) = world.bundles()
    record_bundle(world.completed(bundle, [a_success(bundle.items[0].id)]), world.settings, world.services, NOW)
    assert world.jobs.records[bundle.items[0].id].cost_usd is None


def test_one_invalid_image_fails_alone() -> None:
    world = World()
    submit(world, photos(2))
    (bundle,) = world.bundles()
    good, bad = (item.id for item in bundle.items)
    notification = world.completed(bundle, [a_success(good), a_failure(bad, retryable=False)])
    record_bundle(notification, world.settings, world.services, NOW)
    assert world.jobs.records[good].state == "done"
    assert world.jobs.records[bad].state == "failed"
    assert world.queue.sent == []


def test_a_retryable_outcome_is_queued_again_with_a_delay() -> None:
    world = World()
    submit(world, photos(1))
    (bundle,) = world.bundles()
    job_id = bundle.items[0].id
    record_bundle(world.completed(bundle, [a_failure(job_id, retryable=True)]), world.settings, world.services, NOW)
    ((body, delay),) = world.queue.sent
    assert JobMessage.from_body(body) == JobMessage(job_id, attempts=1, trace_id=job_id)
    assert delay > 0
    assert world.jobs.records[job_id].state == "queued"
    assert world.events.published == []


def test_a_job_fails_later_where_the_container_cannot_reach_s3() -> None:
    world = World()
    (job,) = photos(1)
    waiting: list[Job | JobMessage] = [job]
    delays = 0
    while world.jobs.records.get(job.id, job).state != "failed":
        assert admit(waiting, world.settings, world.services, NOW) == [None]
        notification = world.completed(world.bundles()[-1], [a_failure(job.id, retryable=True)])
        record_bundle(notification, world.settings, world.services, NOW)
        body, delay = world.queue.sent[-1]
        waiting, delays = [JobMessage.from_body(body)], delays + delay
    assert world.jobs.records[job.id].attempts == STORAGE_ATTEMPTS
    assert 6 * 3600 < delays < 7 * 3600


def test_a_failed_invocation_queues_its_whole_bundle_again() -> None:
    world = World()
    submit(world, photos(3))
    (bundle,) = world.bundles()
    record_bundle(world.failed(bundle), world.settings, world.services, NOW)
    assert {job.state for job in world.jobs.records.values()} == {"queued"}
    assert len(world.queue.sent) == 3
    assert {job.attempts for job in world.jobs.records.values()} == {1}


def test_a_bundle_that_no_container_received_costs_no_attempt_however_many_times_it_is_notified() -> None:
    world = World()
    submit(world, photos(3))
    (bundle,) = world.bundles()
    for _ in range(2):
        record_bundle(world.failed(bundle, started=False), world.settings, world.services, NOW)
    assert {(job.state, job.attempts) for job in world.jobs.records.values()} == {("queued", 0)}
    # The second notification sends the messages again: the function may have crashed after the first.
    assert [delay for _, delay in world.queue.sent] == [PAUSE_S] * 6


def test_while_bundles_fail_before_a_container_receives_them_the_next_ones_wait_longer() -> None:
    world = World()
    (job,) = photos(1)
    waiting: list[Job | JobMessage] = [job]
    at, delays = 0.0, []
    while at < 60:
        assert admit(waiting, world.settings, world.services, minutes_later(at)) == [None]
        record_bundle(
            world.failed(world.bundles()[-1], started=False), world.settings, world.services, minutes_later(at)
        )
        body, delay = world.queue.sent[-1]
        waiting = [JobMessage.from_body(body)]
        delays.append(delay)
        at += delay / 60
    assert delays[:6] == [60, 60, 120, 240, 480, DELAY_MAX_S]
    assert world.jobs.records[job.id].attempts == 0


def test_bundles_get_smaller_with_every_attempt_so_that_a_crashing_image_is_isolated() -> None:
    assert [bundle_size(attempts, BUNDLE_MAX) for attempts in range(5)] == [BUNDLE_MAX, 8, 1, 1, 1]
    assert [bundle_size(attempts, 16) for attempts in range(3)] == [16, 2, 1]
    world = World()
    submit(world, photos(20))
    (bundle,) = world.bundles()
    record_bundle(world.failed(bundle), world.settings, world.services, NOW)
    messages = [JobMessage.from_body(body) for body, _ in world.queue.sent]
    assert admit(messages, world.settings, world.services, NOW) == [None] * 20
    assert [len(again.items) for again in world.bundles()[1:]] == [8, 8, 4]


def test_a_job_fails_after_the_maximum_number_of_attempts_with_the_last_error() -> None:
    world = World()
    (job,) = photos(1)
    waiting: list[Job | JobMessage] = [job]
    for _ in range(world.settings.max_attempts):
        assert admit(waiting, world.settings, world.services, NOW) == [None]
        record_bundle(world.failed(world.bundles()[-1], "out of memory"), world.settings, world.services, NOW)
        waiting = [JobMessage.from_body(world.queue.sent[-1][0])]
    record = world.jobs.records[job.id]
    assert record.state == "failed"
    assert record.error
    assert record.error.code == "gave_up"
    assert "out of memory" in record.error.message
    assert len(world.queue.sent) == world.settings.max_attempts - 1
    assert world.events.published == [record]


def test_the_event_of_a_job_that_failed_is_published_by_the_redelivered_notification() -> None:
    world = World()
    world.settings = replace(world.settings, max_attempts=1)
    submit(world, photos(1))
    notification = world.failed(world.bundles()[0])
    world.events.broken = EventsUnavailable("Publishing events failed.")
    with pytest.raises(EventsUnavailable):
        record_bundle(notification, world.settings, world.services, NOW)
    world.events.broken = None
    record_bundle(notification, world.settings, world.services, NOW)
    assert [job.state for job in world.events.published] == ["failed"]


def test_the_event_of_a_result_of_an_earlier_bundle_is_published_by_the_redelivered_notification() -> None:
    world = World()
    submit(world, photos(1))
    (old,) = world.bundles()
    assert admit(photos(1), world.settings, world.services, minutes_later(4)) == [None]  # a late duplicate event
    notification = world.completed(old, [a_success(old.items[0].id)])
    world.events.broken = EventsUnavailable("Publishing events failed.")
    with pytest.raises(EventsUnavailable):
        record_bundle(notification, world.settings, world.services, NOW)
    world.events.broken = None
    record_bundle(notification, world.settings, world.services, NOW)
    assert [job.state for job in world.events.published] == ["done"]


def test_a_late_failure_of_an_earlier_bundle_is_ignored() -> None:
    world = World()
    submit(world, photos(1))
    (old,) = world.bundles()
    record_bundle(world.failed(old), world.settings, world.services, NOW)
    admit([JobMessage(old.items[0].id, 1)], world.settings, world.services, NOW)
    before = dict(world.jobs.records)
    record_bundle(world.failed(old), world.settings, world.services, NOW)
    record_bundle(
        world.completed(old, [a_failure(old.items[0].id, retryable=False)]), world.settings, world.services, NOW
    )
    assert world.jobs.records == before


def test_a_late_result_of_an_earlier_bundle_is_recorded() -> None:
    world = World()
    submit(world, photos(1))
    (old,) = world.bundles()
    record_bundle(world.failed(old), world.settings, world.services, NOW)
    record_bundle(world.completed(old, [a_success(old.items[0].id)]), world.settings, world.services, NOW)
    assert world.jobs.records[old.items[0].id].state == "done"


def test_a_duplicate_notification_is_recorded_once_and_published_again() -> None:
    world = World()
    submit(world, photos(1))
    (bundle,) = world.bundles()
    notification = world.completed(bundle, [a_success(bundle.items[0].id)])
    record_bundle(notification, world.settings, world.services, NOW)
    record_bundle(notification, world.settings, world.services, NOW)
    assert len(world.jobs.records) == 1
    assert [job.state for job in world.events.published] == ["done", "done"]


@pytest.mark.parametrize("started", [True, False])
def test_the_sweep_counts_an_attempt_only_where_a_container_received_the_bundle(started: bool) -> None:
    world = World()
    submit(world, photos(2))
    (bundle,) = world.bundles()
    world.failed(bundle, started=started)
    assert sweep(world.settings, world.services, minutes_later(1000)) == 2
    assert {job.attempts for job in world.jobs.records.values()} == {int(started)}


def test_the_sweep_sends_no_second_message_for_jobs_whose_messages_may_be_delayed() -> None:
    world = World()
    world.settings = replace(world.settings, backlog_max=1)
    submit(world, photos(2))
    for minutes, swept in ((0, 1), (1000, 2)):  # the pause ended 1000 minutes before
        world.queue.sent.clear()
        world.registry.now = minutes_later(minutes)
        assert sweep(world.settings, world.services, minutes_later(1000 + minutes)) == swept
        assert len(world.queue.sent) == swept


@pytest.mark.parametrize("state", ["queued", "submitted"])
def test_the_sweep_queues_an_overdue_job_again(state: str) -> None:
    world = World()
    submit(world, photos(1))
    (record,) = world.jobs.records.values()
    world.jobs.records[record.id] = replace(record, state=state)  # type: ignore[arg-type]
    overdue = world.settings.overdue_s / 60
    assert sweep(world.settings, world.services, minutes_later(overdue - 1)) == 0
    assert sweep(world.settings, world.services, minutes_later(overdue + 1)) == 1
    assert world.jobs.records[record.id].state == "queued"
    assert len(world.queue.sent) == 1
    # It has just been sent: the next sweep leaves it alone.
    assert sweep(world.settings, world.services, minutes_later(overdue + 6)) == 0


def test_the_sweep_fails_a_job_after_its_last_attempt() -> None:
    world = World()
    submit(world, photos(1))
    (record,) = world.jobs.records.values()
    world.jobs.records[record.id] = replace(record, attempts=world.settings.max_attempts)
    world.failed(world.bundles()[0])
    assert sweep(world.settings, world.services, minutes_later(1000)) == 1
    assert world.jobs.records[record.id].state == "failed"
    assert world.events.published == [world.jobs.records[record.id]]


def test_the_sweep_ignores_finished_jobs() -> None:
    world = World()
    submit(world, photos(1))
    (bundle,) = world.bundles()
    record_bundle(world.completed(bundle, [a_success(bundle.items[0].id)]), world.settings, world.services, NOW)
    assert sweep(world.settings, world.services, minutes_later(10_000)) == 0


def test_a_dead_letter_of_an_unknown_photo_leaves_a_failed_record() -> None:
    world = World()
    fail_dead_letters([dropped(a_source(), NOW)], "Too many deliveries.", world.services, NOW)
    (record,) = world.jobs.records.values()
    assert record.state == "failed"
    assert record.error == ErrorInfo("gave_up", "Too many deliveries.", False)
    assert world.events.published == [record]


def test_a_dead_letter_of_a_queued_job_fails_it() -> None:
    world = World()
    world.endpoint.unavailable = True
    (job,) = photos(1)
    admit([job], world.settings, world.services, NOW)
    fail_dead_letters([JobMessage(job.id, 1)], "Too many deliveries.", world.services, NOW)
    assert world.jobs.records[job.id].state == "failed"


@pytest.mark.parametrize("known", [True, False])
def test_the_event_of_a_dead_letter_is_published_when_the_dead_letter_is_received_again(known: bool) -> None:
    world = World()
    (job,) = photos(1)
    if known:
        world.jobs.claim(job)
    world.events.broken = EventsUnavailable("Publishing events failed.")
    with pytest.raises(EventsUnavailable):
        fail_dead_letters([job], "Too many deliveries.", world.services, NOW)
    world.events.broken = None
    fail_dead_letters([job], "Too many deliveries.", world.services, NOW)
    assert [one.state for one in world.events.published] == ["failed"]


def test_a_dead_letter_of_a_submitted_job_is_ignored() -> None:
    world = World()
    (job,) = photos(1)
    submit(world, [job])
    fail_dead_letters([job], "Too many deliveries.", world.services, NOW)
    assert world.jobs.records[job.id].state == "submitted"
    assert world.events.published == []


def test_a_response_that_could_not_be_recorded_queues_its_jobs_again() -> None:
    world = World()
    submit(world, photos(2))
    (bundle,) = world.bundles()
    error = ErrorInfo("not_recorded", "It could not be recorded.", True)
    requeue_bundle(world.completed(bundle, []), error, world.settings, world.services, NOW)
    assert len(world.queue.sent) == 2


def an_upload(world: World, state: str = "queued", attempts: int = 0) -> Job:
    """A job of an owner's, on record in `state`, with its upload and, if it is done, its result."""
    source = Source("inbox-bucket", f"{uploads_of('shop')}1/a.jpg", "v1", 5)
    job = queued(source, "default", Options(), NOW, owner="shop")
    finished = NOW if state in ("done", "failed") else None
    job = replace(job, state=state, attempts=attempts, finished_at=finished)  # type: ignore[arg-type]
    world.jobs.claim(job)
    world.storage.write(source.bucket, source.key, b"photo", "image/jpeg")
    if state == "done":
        with_result(world, job)
    return job


def with_result(world: World, job: Job, of: str = "") -> tuple[str, str]:
    """Writes a result where the job's goes, of another job where `of` names it."""
    place = (world.settings.results, job.result_key)
    world.storage.write(*place, b"cut-out", "image/png")
    world.storage.jobs[place] = of or job.id
    return place


def test_a_new_job_gets_a_message_and_another_one_while_it_is_queued() -> None:
    world = World()
    job = queued(a_source(), "default", Options(), NOW, owner="shop")
    assert [enqueue(job, world.services) for _ in range(2)] == [job, job]
    assert world.queue.sent == [(JobMessage(job.id, 0, job.trace_id, group_of("shop")).to_body(), 0)] * 2


def test_a_job_that_is_no_longer_queued_is_returned_without_a_message() -> None:
    world = World()
    done = an_upload(world, "done")
    assert enqueue(replace(done, state="queued", finished_at=None), world.services) == done
    assert not world.queue.sent


@pytest.mark.parametrize(("attempts", "company"), [(0, 64), (1, 8), (5, 1)])
def test_a_retried_job_is_submitted_in_a_bundle_as_small_as_its_attempts_require(attempts: int, company: int) -> None:
    world = World()
    failed = an_upload(world, "failed", attempts)
    waiting = retry(failed, world.services, minutes_later(1))
    assert (waiting.state, waiting.attempts, waiting.finished_at) == ("queued", 0, None)
    ((body, _),) = world.queue.sent
    assert bundle_size(JobMessage.from_body(body).attempts, BUNDLE_MAX) == company


def test_a_retry_uses_the_corrected_preset_and_fails_while_it_is_invalid() -> None:
    world = World()
    own: dict[str, dict[str, Any]] = {"shop": {"output": {"format": "bmp"}}}
    services = replace(world.services, presets=Presets(lambda: own, clock=iter(range(0, 1000, 100)).__next__))
    admit(new_jobs([a_source("inbox/shop/a.jpg")], NOW, services.presets), world.settings, services, NOW)
    (failed,) = world.jobs.records.values()
    assert failed.error
    assert failed.error.code == "invalid_preset"
    with pytest.raises(InvalidPreset):
        retry(failed, services, NOW)
    assert not world.queue.sent
    own["shop"] = {"output": {"format": "webp"}}
    waiting = retry(failed, services, NOW)
    assert (waiting.id, waiting.preset, waiting.options.output.format) == (failed.id, "shop", "webp")
    assert len(world.queue.sent) == 1


def test_a_retry_without_a_message_can_be_repeated() -> None:
    world = World()
    retry(an_upload(world, "failed"), world.services, NOW)
    (waiting,) = world.jobs.records.values()
    assert retry(waiting, world.services, NOW) == waiting
    assert len(world.queue.sent) == 2


@pytest.mark.parametrize("state", ["submitted", "done"])
def test_only_a_failed_job_is_retried(state: str) -> None:
    world = World()
    with pytest.raises(JobNotFailed, match=state):
        retry(an_upload(world, state), world.services, NOW)
    assert not world.queue.sent


@pytest.mark.parametrize("state", [state for state in STATES if state != "submitted"])
def test_a_deleted_job_leaves_no_record_and_no_image(state: str) -> None:
    world = World()
    remove(an_upload(world, state), world.settings, world.services)
    assert not world.jobs.records
    assert not world.storage.objects


def test_a_submitted_job_is_not_deleted() -> None:
    world = World()
    job = an_upload(world, "submitted")
    with pytest.raises(JobInProgress):
        remove(job, world.settings, world.services)
    assert world.jobs.records == {job.id: job}
    assert (job.source.bucket, job.source.key) in world.storage.objects


def test_a_job_that_is_submitted_while_it_is_deleted_keeps_its_upload() -> None:
    world = World()
    job = an_upload(world)
    world.jobs.take(job.id, bundle="b", now=NOW, abandoned=NOW)
    with pytest.raises(JobInProgress):
        remove(job, world.settings, world.services)
    assert (job.source.bucket, job.source.key) in world.storage.objects


def test_deleting_a_job_keeps_the_dropped_photo_and_the_result_of_a_newer_version() -> None:
    world = World()
    old, new = (replace(dropped(a_source(version=v), NOW), state="done", finished_at=NOW) for v in ("v1", "v2"))
    world.storage.write(old.source.bucket, old.source.key, b"photo", "image/jpeg")
    place = with_result(world, old, of=new.id)
    for job in (old, new):
        world.jobs.claim(job)
    remove(old, world.settings, world.services)
    assert set(world.storage.objects) == {(old.source.bucket, old.source.key), place}
    remove(new, world.settings, world.services)
    assert set(world.storage.objects) == {(old.source.bucket, old.source.key)}


def test_deleting_a_job_keeps_uploads_of_other_owners() -> None:
    world = World()
    theirs = an_upload(world)
    ours = queued(theirs.source, "default", Options(), NOW, owner="operator")
    world.jobs.claim(ours)
    remove(ours, world.settings, world.services)
    assert (theirs.source.bucket, theirs.source.key) in world.storage.objects
