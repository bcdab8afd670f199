import json
from typing import Any

from lambdas import dead_letters
from lambdas.webhooks import process
from maskdrop.errors import HostUnavailable
from maskdrop.webhook import RETRY_S, bus_event, event_of
from tests.fakes import NOW, FakeDeadLetters
from tests.unit.lambdas.test_record import sqs
from tests.unit.maskdrop.test_webhook import URL, a_done_job, a_world


def webhook_message(attempt: int) -> dict[str, Any]:
    """Returns the SQS message of an event at its `attempt`-th delivery."""
    event = sqs(json.dumps({"source": "maskdrop", "detail-type": "Job Done", "detail": bus_event(a_done_job())}))
    event["Records"][0]["attributes"] = {"ApproximateReceiveCount": str(attempt)}
    event["Records"][0]["receiptHandle"] = "receipt"
    return event


def test_an_bus_event_the_bus_is_posted() -> None:
    world = a_world()
    assert process(webhook_message(1), world.settings, world.services, NOW) == {"batchItemFailures": []}
    ((url, _, body),) = world.web.posted
    assert (url, json.loads(body)) == (URL, event_of(a_done_job()))
    assert world.webhooks_queue.hidden == []


def test_a_failed_webhook_is_retried_with_backoff_until_the_dead_letter_queue() -> None:
    world = a_world()
    world.web.status = HostUnavailable("hooks.example.com did not respond in time.")
    for attempt in range(1, len(RETRY_S) + 2):
        message = webhook_message(attempt)
        returned = [{"itemIdentifier": message["Records"][0]["messageId"]}]
        assert process(message, world.settings, world.services, NOW) == {"batchItemFailures": returned}
    assert world.webhooks_queue.hidden == [("receipt", seconds) for seconds in (*RETRY_S, 0)]


def test_a_dead_letter_of_a_webhook_is_logged_and_fails_no_job(capsys) -> None:  # type: ignore[no-untyped-def]
    world = a_world()
    body = webhook_message(9)["Records"][0]["body"]
    queue = FakeDeadLetters([body])
    assert dead_letters.process(queue, world.settings, world.services, NOW) == {"deleted": 1, "failed": 0}
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "webhook failed" in line]
    assert (line["job_id"], line["url"]) == (a_done_job().id, "https://hooks.example.com/...")
    assert world.jobs.records == {}
