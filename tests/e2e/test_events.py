import json
import uuid
from typing import Any

from local.connect import client
from tests.e2e.conftest import Running, wait_until


def test_every_finished_job_is_published_to_the_event_bus(running: Running, photo: bytes) -> None:
    events, sqs = client(running.config, "events"), client(running.config, "sqs")
    name = f"listener-{uuid.uuid4().hex}"
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = {"source": ["maskdrop"], "detail-type": ["Job Done", "Job Failed"]}
    events.put_rule(Name=name, EventBusName=running.stack.event_bus, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, EventBusName=running.stack.event_bus, Targets=[{"Id": "queue", "Arn": arn}])

    good, bad = running.put(photo), running.put(b"no image")
    received: dict[str, dict[str, Any]] = {}

    def both_received() -> bool:
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", ()):
            event = json.loads(message["Body"])
            received[event["detail"]["data"]["id"]] = event
        return {good, bad} <= received.keys()

    try:
        wait_until(both_received, "both events")
    finally:
        events.remove_targets(Rule=name, EventBusName=running.stack.event_bus, Ids=["queue"])
        events.delete_rule(Name=name, EventBusName=running.stack.event_bus)
    assert received[good]["detail-type"] == "Job Done"
    assert received[good]["detail"]["type"] == "job.done"
    assert received[good]["detail"]["data"]["result"]["width"] == 512
    assert received[bad]["detail-type"] == "Job Failed"
    assert received[bad]["detail"]["data"]["error"]["code"] == "unsupported_format"
