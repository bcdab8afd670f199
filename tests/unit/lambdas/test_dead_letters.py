import json

from lambdas.dead_letters import process
from maskdrop.flow import admit, arrivals
from tests.fakes import NOW, World, a_source
from tests.unit.lambdas.test_ingest import S3_PUT
from tests.unit.lambdas.test_record import body, sqs


def test_a_photo_whose_message_died_is_failed_with_a_reason() -> None:
    world = World()
    assert process(sqs(S3_PUT), world.settings, world.services, NOW) == {"batchItemFailures": []}
    (record,) = world.jobs.records.values()
    assert record.error
    assert record.error.code == "gave_up"
    assert "Upload the image again" in record.error.message


def test_the_jobs_of_a_dead_notification_go_round_again() -> None:
    world = World()
    admit(arrivals([a_source()], NOW), world.settings, world.services, NOW)
    (bundle,) = world.bundles()
    process(sqs(body(world.failed(bundle))), world.settings, world.services, NOW)
    assert [job.state for job in world.jobs.records.values()] == ["queued"]
    assert len(world.queue.sent) == 1


def test_what_names_no_job_is_kept_in_the_log_and_not_delivered_again(capsys) -> None:  # type: ignore[no-untyped-def]
    world = World()
    assert process(sqs("gibberish é"), world.settings, world.services, NOW) == {"batchItemFailures": []}
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "unreadable" in line]
    assert [line["body"] for line in lines] == ["gibberish é"]
