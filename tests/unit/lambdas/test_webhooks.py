import json
from typing import Any

from lambdas import dead_letters
from lambdas.webhooks import process
from maskdrop.errors import HostUnavailable
from maskdrop.webhook import RETRY_S, event_of
from tests.fakes import NOW
from tests.unit.lambdas.test_record import sqs
from tests.unit.maskdrop.test_webhook import URL, a_done_job, a_world


def from_the_bus(attempt: int) -> dict[str, Any]:
    """What SQS hands over of an event for the `attempt`-th time."""
    event = sqs(json.dumps({"source": "maskdrop", "detail-type": "Job Done", "detail": event_of(a_done_job())}))
    event["Records"][0]["attributes"] = {"ApproximateReceiveCount": str(attempt)}
    event["Records"][0]["receiptHandle"] = "receipt"
    return event


def test_what_the_bus_tells_is_posted() -> None:
    world = a_world()
    assert process(from_the_bus(1), world.services, NOW) == {"batchItemFailures": []}
    ((url, _, body),) = world.web.posted
    assert (url, json.loads(body)) == (URL, event_of(a_done_job()))
    assert world.webhooks_queue.hidden == []


def test_what_is_not_taken_comes_back_after_ever_longer_and_then_to_the_dead_letters() -> None:
    world = a_world()
    world.web.status = HostUnavailable("hooks.example.com did not answer in time.")
    for attempt in range(1, len(RETRY_S) + 2):
        message = from_the_bus(attempt)
        returned = [{"itemIdentifier": message["Records"][0]["messageId"]}]
        assert process(message, world.services, NOW) == {"batchItemFailures": returned}
    assert world.webhooks_queue.hidden == [("receipt", seconds) for seconds in (*RETRY_S, 0)]


def test_a_dead_webhook_is_told_in_the_log_and_fails_no_job(capsys) -> None:  # type: ignore[no-untyped-def]
    world = a_world()
    body = from_the_bus(9)["Records"][0]["body"]
    assert dead_letters.process(sqs(body), world.settings, world.services, NOW) == {"batchItemFailures": []}
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "webhook failed" in line]
    assert (line["job_id"], line["url"]) == (a_done_job().id, URL)
    assert world.jobs.records == {}
