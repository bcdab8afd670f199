import json
from datetime import timedelta
from pathlib import Path

import pytest

from maskdrop.errors import EndpointFailed, EndpointUnavailable, SourceMissing
from maskdrop.flow import DELAY_S, admit, new_jobs, record_bundle
from maskdrop.serverless import EXPIRED, invoke_bundle
from maskdrop.wire import BundleMessage, BundleResponse, Notification
from tests.fakes import NOW, World, a_source, a_success

EVENTS = Path(__file__).parents[2] / "events"
LATER = NOW + timedelta(hours=6)


def submitted(world: World) -> BundleMessage:
    """Submits one photo and returns the message of its bundle."""
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    [(bundle, uri)] = world.endpoint.submitted
    (job,) = world.jobs.records.values()
    world.serverless.response = BundleResponse(bundle, "cpu", 800.0, None, (a_success(job.id),)).to_bytes()
    return BundleMessage(bundle=bundle, input=uri, expires_at=LATER)


def notification(world: World) -> Notification:
    [(body, delay_s)] = world.results_queue.sent
    assert delay_s == 0
    return Notification.from_body(body)


def test_a_response_is_stored_and_its_notification_finishes_the_jobs() -> None:
    world = World()
    message = submitted(world)
    assert invoke_bundle(message, world.settings, world.services, NOW) == "completed"
    assert world.serverless.invoked == [world.bundles()[0].to_bytes()]
    sent = notification(world)
    assert sent == Notification(
        message.bundle, True, message.input, f"s3://results-bucket/bundles/out/{message.bundle}.out", ""
    )
    record_bundle(sent, world.settings, world.services, NOW)
    assert [job.state for job in world.jobs.records.values()] == ["done"]


def test_a_failure_of_the_container_is_notified() -> None:
    world = World()
    message = submitted(world)
    world.serverless.broken = EndpointFailed("The container was out of memory.")
    assert invoke_bundle(message, world.settings, world.services, NOW) == "failed"
    sent = notification(world)
    assert sent == Notification(message.bundle, False, message.input, "", "The container was out of memory.")
    record_bundle(sent, world.settings, world.services, NOW)
    assert [job.state for job in world.jobs.records.values()] == ["queued"]


@pytest.mark.parametrize(("refusals", "delay_s"), [(0, 5), (1, 30), (4, 900), (500, 900)])
def test_a_refused_bundle_returns_to_its_queue_with_a_growing_delay(refusals: int, delay_s: int) -> None:
    world = World()
    message = submitted(world)
    world.serverless.broken = EndpointUnavailable("Invoking the endpoint failed: ThrottlingException.")
    refused = BundleMessage(
        bundle=message.bundle, input=message.input, expires_at=message.expires_at, refusals=refusals
    )
    assert invoke_bundle(refused, world.settings, world.services, NOW) == "refused"
    [(body, delayed)] = world.bundles_queue.sent
    assert delayed == delay_s
    assert json.loads(body) == json.loads(refused.to_body()) | {"refusals": refusals + 1}
    assert not world.results_queue.sent
    assert [job.state for job in world.jobs.records.values()] == ["submitted"]


def test_the_longest_delay_is_one_that_sqs_accepts() -> None:
    assert max(DELAY_S) <= 900


def test_an_expired_bundle_is_not_sent_and_its_jobs_are_queued_again() -> None:
    world = World()
    message = submitted(world)
    assert invoke_bundle(message, world.settings, world.services, LATER) == "failed"
    assert not world.serverless.invoked
    sent = notification(world)
    assert sent.reason == EXPIRED
    record_bundle(sent, world.settings, world.services, LATER)
    assert [job.state for job in world.jobs.records.values()] == ["queued"]


def test_a_duplicate_message_changes_no_finished_job() -> None:
    world = World()
    message = submitted(world)
    for _ in range(2):
        invoke_bundle(message, world.settings, world.services, NOW)
    bodies = [body for body, _ in world.results_queue.sent]
    assert len(bodies) == 2
    record_bundle(Notification.from_body(bodies[0]), world.settings, world.services, NOW)
    finished = dict(world.jobs.records)
    record_bundle(Notification.from_body(bodies[1]), world.settings, world.services, NOW)
    assert world.jobs.records == finished
    assert not world.queue.sent


def test_a_failed_bundle_whose_jobs_moved_to_another_bundle_changes_no_job() -> None:
    world = World()
    message = submitted(world)
    (job,) = world.jobs.records.values()
    world.jobs.requeue(job.id, bundle=message.bundle, now=NOW)
    world.jobs.take(job.id, bundle="another", now=NOW, abandoned=NOW)
    moved = dict(world.jobs.records)
    world.serverless.broken = EndpointFailed("The container failed.")
    invoke_bundle(message, world.settings, world.services, NOW)
    record_bundle(notification(world), world.settings, world.services, NOW)
    assert world.jobs.records == moved
    assert not world.queue.sent


def test_a_bundle_without_its_manifest_raises_so_that_its_message_is_redelivered() -> None:
    world = World()
    message = submitted(world)
    world.storage.objects.clear()
    with pytest.raises(SourceMissing):
        invoke_bundle(message, world.settings, world.services, NOW)
    assert not world.results_queue.sent


@pytest.mark.parametrize("name", ["sagemaker_completed", "sagemaker_failed"])
def test_a_notification_has_only_fields_of_the_notification_of_sagemaker(name: str) -> None:
    event = json.loads((EVENTS / f"{name}.json").read_text())
    ours = json.loads(Notification.from_body(json.dumps(event)).to_body())
    for field, value in ours.items():
        assert value == event[field] or value.items() <= event[field].items()
