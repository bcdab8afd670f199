import json
from pathlib import Path
from typing import Any

from lambdas.ingest import process
from maskdrop.errors import QueueUnavailable, TableUnavailable
from maskdrop.valve import PAUSE_S
from maskdrop.wire import JobMessage
from tests.fakes import NOW, World, minutes_later

S3_PUT = (Path(__file__).parents[2] / "events" / "s3_put.json").read_text()
S3_TEST_EVENT = (Path(__file__).parents[2] / "events" / "s3_test_event.json").read_text()


def messages(*bodies: str) -> dict[str, Any]:
    return {"Records": [{"messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]}


def returned(response: dict[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]


def put(key: str, version: str = "v1") -> str:
    event = json.loads(S3_PUT)
    event["Records"][0]["s3"]["object"] |= {"key": key, "versionId": version}
    return json.dumps(event)


def test_a_dropped_photo_is_submitted_and_its_message_is_deleted() -> None:
    world = World()
    assert returned(process(messages(S3_PUT), world.settings, world.services, NOW)) == []
    (bundle,) = world.bundles()
    assert bundle.items[0].source.key == "inbox/default/Grüße a+b%2F😀.jpg"


def test_the_test_event_of_s3_is_ignored() -> None:
    world = World()
    assert returned(process(messages(S3_TEST_EVENT), world.settings, world.services, NOW)) == []
    assert world.jobs.records == {}


def test_new_and_retried_jobs_do_not_share_a_bundle() -> None:
    world = World()
    world.endpoint.unavailable = True
    process(messages(put("inbox/default/old.jpg")), world.settings, world.services, NOW)
    world.endpoint.unavailable = False
    (old,) = world.jobs.records
    again = JobMessage(old, attempts=2).to_body()
    process(messages(put("inbox/default/new.jpg"), again), world.settings, world.services, minutes_later(1))
    assert [len(bundle.items) for bundle in world.bundles()] == [1, 1]


def test_only_unreadable_messages_are_returned() -> None:
    world = World()
    response = process(messages("not json", S3_PUT, '{"a": 1}', "[]"), world.settings, world.services, NOW)
    assert returned(response) == ["m0", "m2", "m3"]
    assert len(world.bundles()) == 1


def test_with_an_unavailable_endpoint_photos_get_a_delayed_message_and_no_message_is_returned() -> None:
    world = World()
    world.endpoint.unavailable = True
    assert returned(process(messages(S3_PUT, S3_TEST_EVENT), world.settings, world.services, NOW)) == []
    (job,) = world.jobs.records.values()
    assert world.queue.sent == [(JobMessage(job.id, 0, job.trace_id).to_body(), PAUSE_S)]


def test_a_message_is_returned_if_one_of_its_photos_fails() -> None:
    world = World()
    process(messages(put("inbox/default/known.jpg")), world.settings, world.services, NOW)
    world.endpoint.unavailable = True
    world.queue.broken = QueueUnavailable("Sending to the queue failed.")
    both = json.loads(put("inbox/default/known.jpg"))
    both["Records"] += json.loads(put("inbox/default/new.jpg"))["Records"]
    assert returned(process(messages(json.dumps(both)), world.settings, world.services, NOW)) == ["m0"]


def test_a_preset_in_the_registry_applies_without_a_deployment() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "jpg", "crop": "10%"}})
    process(messages(put("inbox/shop/a.jpg")), world.settings, world.services, NOW)
    (job,) = world.jobs.records.values()
    assert (job.preset, job.options.output.format) == ("shop", "jpg")
    (bundle,) = world.bundles()
    assert bundle.items[0].result.key == "results/shop/a.jpg.jpg"


def test_an_invalid_preset_fails_only_the_photos_that_use_it() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "bmp"}})
    bodies = put("inbox/shop/a.jpg"), put("inbox/default/b.jpg")
    assert returned(process(messages(*bodies), world.settings, world.services, NOW)) == []
    jobs = {job.source.key: job for job in world.jobs.records.values()}
    failed, fine = jobs["inbox/shop/a.jpg"], jobs["inbox/default/b.jpg"]
    assert (failed.state, fine.state) == ("failed", "submitted")
    assert failed.error
    assert failed.error.code == "invalid_preset"
    assert "output.format" in failed.error.message
    assert world.events.published == [failed]


def test_with_an_unavailable_registry_messages_are_returned_and_jobs_are_unchanged() -> None:
    world = World()
    process(messages(put("inbox/default/old.jpg")), world.settings, world.services, NOW)
    (old,) = world.jobs.records
    waiting = world.jobs.requeue(old, bundle=world.jobs.records[old].bundle, now=NOW)
    world.registry.broken = TableUnavailable("Reading the registry failed.")
    response = process(
        messages(put("inbox/default/new.jpg"), JobMessage(old, 1).to_body()), world.settings, world.services, NOW
    )
    assert returned(response) == ["m0", "m1"]
    assert world.jobs.records == {old: waiting}


def test_a_duplicate_event_after_a_change_of_its_preset_creates_no_second_job() -> None:
    world = World()
    for form in ("jpg", "webp"):
        world.registry.put("preset", "shop", {"output": {"format": form}})
        process(messages(put("inbox/shop/a.jpg")), world.settings, world.services, NOW)
    (job,) = world.jobs.records.values()
    assert job.options.output.format == "jpg"
