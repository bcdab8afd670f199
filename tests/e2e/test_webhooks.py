"""A job that names a webhook, from the queue to a receiver on this machine, which verifies as any receiver would."""

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


def asked_for(running: Running, body: bytes, webhook: Webhook) -> Job:
    """A job with a webhook, as the API writes it, beside the one that the photo's event makes."""
    key = inbox_key(f"hooks/{uuid.uuid4().hex}.jpg")
    put = running.pictures.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=body)
    source = Source(running.stack.inbox, key, put["VersionId"], len(body))
    return replace(dropped(source, datetime.now(UTC)), id=uuid.uuid4().hex, webhook=webhook)


def submit(running: Running, job: Job) -> None:
    assert running.jobs.claim(job)
    running.send(running.stack.jobs_queue_url, JobMessage(job.id, 0).to_body())


def headers_of(head: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in head.split("\r\n")[1:])


def verified(head: str, body: bytes) -> dict[str, Any]:
    """The event of a post, as the standard's own library lets it through."""
    event: dict[str, Any] = Receiver(SECRET).verify(body, headers_of(head))
    return event


def a_key(running: Running) -> str:
    """The registry's name of a key that signs with SECRET."""
    name = uuid.uuid4().hex
    DynamoDBRegistry(client(running.config, "dynamodb"), running.stack.registry).put(
        "key", name, {"webhook_secret": SECRET}
    )
    return name


def test_a_webhook_is_retried_until_the_receiver_accepts_it(running: Running, photo: bytes) -> None:
    responses = itertools.chain([b"HTTP/1.1 503 Busy\r\n\r\n"], itertools.repeat(b"HTTP/1.1 204 Taken\r\n\r\n"))

    def response() -> Iterable[bytes]:
        return [next(responses)]

    with served({"/hook": response}) as receiver:
        webhook = Webhook(f"http://localhost:{receiver.port}/hook", a_key(running))
        good, bad = asked_for(running, photo, webhook), asked_for(running, b"no image", webhook)
        for job in (good, bad):
            submit(running, job)
        # Two ends, one of them told twice: its receiver was busy at first, and takes it 5 s later.
        wait_until(lambda: len(receiver.requests) == 3, "three posts")

    told = [verified(head, body) for head, body in receiver.requests]
    assert sorted(Counter(event["data"]["id"] for event in told).values()) == [1, 2]
    assert len({headers_of(head)["webhook-id"] for head, _ in receiver.requests}) == 2
    ends = {event["data"]["id"]: event for event in told}
    assert ends[good.id]["type"] == "job.done"
    assert ends[good.id]["data"]["result"]["width"] == 512
    assert ends[bad.id]["type"] == "job.failed"
    assert ends[bad.id]["data"]["error"]["code"] == "unsupported_format"


def test_a_webhook_to_an_untrusted_loopback_ip_address_is_not_sent(running: Running, photo: bytes) -> None:
    with served({"/hook": b"HTTP/1.1 204 Taken\r\n\r\n"}) as receiver:
        key = a_key(running)
        refused = asked_for(running, photo, Webhook(f"http://127.0.0.1:{receiver.port}/hook", key))
        taken = asked_for(running, photo, Webhook(f"http://localhost:{receiver.port}/hook", key))
        for job in (refused, taken):
            submit(running, job)
        fates: dict[str, str] = {}

        def both_settled() -> bool:
            lines = [json.loads(line) for line in running.log("webhooks").splitlines() if '"fate"' in line]
            fates.update({line["job_id"]: line["fate"] for line in lines})
            return {refused.id, taken.id} <= fates.keys()

        wait_until(both_settled, "the fate of both webhooks")
        assert (fates[refused.id], fates[taken.id]) == ("refused", "delivered")
        assert [json.loads(body)["data"]["id"] for _, body in receiver.requests] == [taken.id]
