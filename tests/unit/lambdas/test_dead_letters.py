import json

from lambdas.dead_letters import process
from maskdrop.flow import admit, new_jobs
from tests.fakes import NOW, World, a_source
from tests.unit.lambdas.test_ingest import S3_PUT
from tests.unit.lambdas.test_record import body, sqs
from tests.unit.maskdrop.test_serverless import submitted


def test_a_dead_letter_fails_its_job_with_a_reason() -> None:
    world = World()
    assert process(sqs(S3_PUT), world.settings, world.services, NOW) == {"batchItemFailures": []}
    (record,) = world.jobs.records.values()
    assert record.error
    assert record.error.code == "gave_up"
    assert "Upload the image again" in record.error.message


def test_a_dead_letter_of_a_notification_retries_its_jobs() -> None:
    world = World()
    admit(new_jobs([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    process(sqs(body(world.failed(bundle))), world.settings, world.services, NOW)
    assert [job.state for job in world.jobs.records.values()] == ["queued"]
    assert len(world.queue.sent) == 1


def test_a_dead_letter_without_a_job_is_logged_and_not_retried(capsys) -> None:  # type: ignore[no-untyped-def]
    world = World()
    assert process(sqs("gibberish é"), world.settings, world.services, NOW) == {"batchItemFailures": []}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "unreadable" in line]
    assert [line["body"] for line in lines] == ["gibberish é"]


def test_a_dead_letter_of_a_bundle_retries_its_jobs() -> None:
    world = World()
    message = submitted(world)
    assert process(sqs(message.to_body()), world.settings, world.services, NOW) == {"batchItemFailures": []}
    assert [job.state for job in world.jobs.records.values()] == ["queued"]
    assert len(world.queue.sent) == 1
