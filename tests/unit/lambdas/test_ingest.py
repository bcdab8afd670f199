import json
from pathlib import Path
from typing import Any

from lambdas.ingest import process
from maskdrop.errors import TableUnavailable
from maskdrop.wire import JobMessage
from tests.fakes import NOW, World

S3_PUT = (Path(__file__).parents[2] / "events" / "s3_put.json").read_text()
S3_TEST_EVENT = (Path(__file__).parents[2] / "events" / "s3_test_event.json").read_text()


def messages(*bodies: str) -> dict[str, Any]:
    return {"Records": [{"messageId": f"m{number}", "body": body} for number, body in enumerate(bodies)]}


def returned(answer: dict[str, Any]) -> list[str]:
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


def put(key: str, version: str = "v1") -> str:
    event = json.loads(S3_PUT)
    event["Records"][0]["s3"]["object"] |= {"key": key, "versionId": version}
    return json.dumps(event)


def test_a_dropped_photo_is_submitted_and_its_message_is_not_returned() -> None:
    world = World()
    assert returned(process(messages(S3_PUT), world.settings, world.services, NOW)) == []
    (bundle,) = world.bundles()
    assert bundle.items[0].source.key == "inbox/default/Grüße a+b%2F😀.jpg"


def test_the_test_event_of_s3_is_taken_and_forgotten() -> None:
    world = World()
    assert returned(process(messages(S3_TEST_EVENT), world.settings, world.services, NOW)) == []
    assert world.jobs.records == {}


def test_a_batch_of_both_queues_shares_no_bundle_with_what_was_tried_before() -> None:
    world = World()
    world.endpoint.closed = True
    process(messages(put("inbox/default/old.jpg")), world.settings, world.services, NOW)
    world.endpoint.closed = False
    (old,) = world.jobs.records
    again = JobMessage(old, attempts=2).to_body()
    process(messages(put("inbox/default/new.jpg"), again), world.settings, world.services, NOW)
    assert [len(bundle.items) for bundle in world.bundles()] == [1, 1]


def test_an_unreadable_message_returns_alone() -> None:
    world = World()
    answer = process(messages("not json", S3_PUT, '{"a": 1}', "[]"), world.settings, world.services, NOW)
    assert returned(answer) == ["m0", "m2", "m3"]
    assert len(world.bundles()) == 1


def test_when_the_endpoint_is_away_only_the_messages_with_pictures_return() -> None:
    world = World()
    world.endpoint.closed = True
    answer = process(messages(S3_PUT, S3_TEST_EVENT), world.settings, world.services, NOW)
    assert returned(answer) == ["m0"]


def test_a_message_with_one_photo_refused_returns_although_the_other_was_known() -> None:
    world = World()
    process(messages(put("inbox/default/known.jpg")), world.settings, world.services, NOW)
    world.endpoint.closed = True
    both = json.loads(put("inbox/default/known.jpg"))
    both["Records"] += json.loads(put("inbox/default/new.jpg"))["Records"]
    assert returned(process(messages(json.dumps(both)), world.settings, world.services, NOW)) == ["m0"]


def test_a_preset_that_was_made_without_a_deployment_is_followed() -> None:
    world = World()
    world.registry.put("preset", "shop", {"output": {"format": "jpg", "crop": "10%"}})
    process(messages(put("inbox/shop/a.jpg")), world.settings, world.services, NOW)
    (job,) = world.jobs.records.values()
    assert (job.preset, job.options.output.format) == ("shop", "jpg")
    (bundle,) = world.bundles()
    assert bundle.items[0].result.key == "results/shop/a.jpg.jpg"


def test_a_preset_that_cannot_be_used_fails_its_photos_with_the_reason_and_no_others() -> None:
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
    assert world.events.told == [failed]


def test_photos_wait_while_the_presets_cannot_be_read_and_jobs_made_before_do_not() -> None:
    world = World()
    process(messages(put("inbox/default/old.jpg")), world.settings, world.services, NOW)
    (old,) = world.jobs.records
    world.jobs.give_back(old, bundle=world.jobs.records[old].bundle, now=NOW)
    world.registry.broken = TableUnavailable("Reading the registry failed.")
    answer = process(
        messages(put("inbox/default/new.jpg"), JobMessage(old, 1).to_body()), world.settings, world.services, NOW
    )
    assert returned(answer) == ["m0"]
    assert {job.state for job in world.jobs.records.values()} == {"submitted"}


def test_an_event_that_comes_again_after_its_preset_was_changed_makes_no_second_job() -> None:
    world = World()
    for form in ("jpg", "webp"):
        world.registry.put("preset", "shop", {"output": {"format": form}})
        process(messages(put("inbox/shop/a.jpg")), world.settings, world.services, NOW)
    (job,) = world.jobs.records.values()
    assert job.options.output.format == "jpg"
