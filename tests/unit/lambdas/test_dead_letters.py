import json
from collections.abc import Iterator

import pytest

from lambdas.dead_letters import process
from maskdrop.errors import TableUnavailable
from maskdrop.flow import admit, new_jobs
from maskdrop.wire import JobMessage
from tests.fakes import NOW, FakeDeadLetters, World, a_source
from tests.unit.lambdas.test_ingest import S3_PUT
from tests.unit.lambdas.test_record import body
from tests.unit.maskdrop.test_serverless import submitted


def processed(world: World, *bodies: str) -> dict[str, int]:
    return process(FakeDeadLetters([*bodies]), world.settings, world.services, NOW)


def test_a_dead_letter_fails_its_job_with_a_reason() -> None:
    world = World()
    assert processed(world, S3_PUT) == {"deleted": 1, "failed": 0}
    (record,) = world.jobs.records.values()
    assert record.error
    assert record.error.code == "gave_up"
    assert "Upload the image again" in record.error.message


def test_a_dead_letter_of_a_notification_retries_its_jobs() -> None:
    world = World()
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    processed(world, body(world.failed(bundle)))
    assert [job.state for job in world.jobs.records.values()] == ["queued"]
    assert len(world.queue.sent) == 1


def test_a_dead_letter_of_a_bundle_retries_its_jobs() -> None:
    world = World()
    assert processed(world, submitted(world).to_body()) == {"deleted": 1, "failed": 0}
    assert [job.state for job in world.jobs.records.values()] == ["queued"]
    assert len(world.queue.sent) == 1


def test_a_dead_letter_whose_bundle_no_longer_exists_is_logged_and_deleted() -> None:
    world = World()
    text = submitted(world).to_body()
    world.storage.objects.clear()
    assert processed(world, text) == {"deleted": 1, "failed": 0}


def test_a_dead_letter_without_a_job_is_logged_and_not_retried(capsys) -> None:  # type: ignore[no-untyped-def]
    assert processed(World(), "gibberish é") == {"deleted": 1, "failed": 0}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "unreadable" in line]
    assert [line["body"] for line in lines] == ["gibberish é"]


def test_a_dead_letter_that_cannot_be_recorded_stays_in_the_queue_and_does_not_hold_up_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    unavailable = JobMessage("0" * 32, attempts=1).to_body()

    def get(job_id: str) -> None:
        raise TableUnavailable("Reading the job failed.")

    monkeypatch.setattr(world.jobs, "get", get)
    queue = FakeDeadLetters([unavailable, S3_PUT])
    assert process(queue, world.settings, world.services, NOW) == {"deleted": 1, "failed": 1}
    assert queue.deleted == [S3_PUT]


def test_an_invocation_ends_before_its_timeout() -> None:
    world = World()
    queue = FakeDeadLetters(["gibberish"] * 30)
    times: Iterator[bool] = iter([True, True, False])
    assert process(queue, world.settings, world.services, NOW, has_time=lambda: next(times))["deleted"] == 20
    assert len(queue.bodies) == 10
