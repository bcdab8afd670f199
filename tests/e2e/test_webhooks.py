"""Tests jobs with a webhook, from the queue to a receiver that verifies the signature."""

import itertools
import json
import secrets
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from standardwebhooks.webhooks import Webhook as Receiver

from lambdas.adapters.registry import DynamoDBRegistry
from local.connect import client
from maskdrop.job import Job, Source, Webhook, dropped
from maskdrop.wire import JobMessage
from tests.e2e.conftest import Running, inbox_key, wait_until
from tests.web import served

SECRET = "whsec_" + b64encode(secrets.token_bytes(32)).decode()


def job_with_webhook(running: Running, body: bytes, webhook: Webhook) -> Job:
    """Returns a job with a webhook, as the API creates it; the S3 event of the photo creates another job."""
    key = inbox_key(f"hooks/{uuid.uuid4().hex}.jpg")
    put = running.images.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=body)
    source = Source(running.stack.inbox, key, put["VersionId"], len(body))
    return replace(dropped(source, datetime.now(UTC)), id=uuid.uuid4().hex, webhook=webhook)


def submit(running: Running, job: Job) -> None:
    assert running.jobs.claim(job)
    running.send(running.stack.jobs_queue_url, JobMessage(job.id, 0).to_body())


def headers_of(head: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


def verified(head: str, body: bytes) -> dict[str, Any]:
    """Verifies the signature of a post with the library of Standard Webhooks and returns the event."""
    event: dict[str, Any] = Receiver(SECRET).verify(body, headers_of(head))
    return event


def a_key(running: Running) -> str:
    """Creates a key with SECRET and returns its name in the registry."""
    name = uuid.uuid4().hex
    DynamoDBRegistry(client(running.config, "dynamodb"), running.stack.registry).put(
        "secret", name, {"webhook_secret": SECRET}
    )
    return name


def test_a_webhook_is_retried_until_the_receiver_accepts_it(running: Running, photo: bytes) -> None:
    responses = itertools.chain([b"HTTP/1.1 503 Busy\r\n\r\n"], itertools.repeat(b"HTTP/1.1 204 Taken\r\n\r\n"))

    def response() -> Iterable[bytes]:
        return [next(responses)]

    with served({"/hook": response}) as receiver:
        webhook = Webhook(f"http://localhost:{receiver.port}/hook", a_key(running))
        good, bad = job_with_webhook(running, photo, webhook), job_with_webhook(running, b"no image", webhook)
        for job in (good, bad):
            submit(running, job)
        # Two events, one of them sent twice: the first response is 503, and the retry follows after 5 s.
        wait_until(lambda: len(receiver.requests) == 3, "three posts")

    events = [verified(head, body) for head, body in receiver.requests]
    assert sorted(Counter(event["data"]["id"] for event in events).values()) == [1, 2]
    assert len({headers_of(head)["webhook-id"] for head, _ in receiver.requests}) == 2
    by_job = {event["data"]["id"]: event for event in events}
    assert by_job[good.id]["type"] == "job.done"
    assert by_job[good.id]["data"]["result"]["width"] == 512
    assert by_job[bad.id]["type"] == "job.failed"
    assert by_job[bad.id]["data"]["error"]["code"] == "unsupported_format"


def test_a_webhook_to_an_untrusted_loopback_ip_address_is_not_sent(running: Running, photo: bytes) -> None:
    with served({"/hook": b"HTTP/1.1 204 Taken\r\n\r\n"}) as receiver:
        key = a_key(running)
        rejected = job_with_webhook(running, photo, Webhook(f"http://127.0.0.1:{receiver.port}/hook", key))
        delivered = job_with_webhook(running, photo, Webhook(f"http://localhost:{receiver.port}/hook", key))
        for job in (rejected, delivered):
            submit(running, job)
        outcomes: dict[str, str] = {}

        def both_logged() -> bool:
            lines = [json.loads(line) for line in running.log("webhooks").splitlines() if '"outcome"' in line]
            outcomes.update({line["job_id"]: line["outcome"] for line in lines})
            return {rejected.id, delivered.id} <= outcomes.keys()

        wait_until(both_logged, "both outcomes in the log")
        assert (outcomes[rejected.id], outcomes[delivered.id]) == ("refused", "delivered")
        assert [json.loads(body)["data"]["id"] for _, body in receiver.requests] == [delivered.id]
