"""Webhooks: the event of a finished job, posted to the URL of its request in the format of Standard Webhooks
(https://www.standardwebhooks.com, specification 1.0.0), whose libraries verify the signature.

The body is the event that EventBridge receives too. The secret is that of the API key, from the registry. A failed
delivery is retried through the webhooks queue.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from maskdrop import trace
from maskdrop.errors import BlockedUrl, HostUnavailable, InvalidUrl
from maskdrop.job import Job
from maskdrop.record import iso
from maskdrop.services import Services

RETRY_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""Seconds before the second, third … attempt: 28 hours in all. The specification's example has gaps of up to 20 hours;
the visibility timeout of SQS is 12 hours at most."""

SECRET_PREFIX = "whsec_"  # noqa: S105  prefix of every secret

Fate = Literal["delivered", "gone", "refused", "unsigned"]
"""Final outcome of a delivery: accepted; rejected permanently (410); URL not allowed; no secret, or key revoked."""


def event_of(job: Job) -> dict[str, Any]:
    """The event of a finished job."""
    moment = job.finished_at or job.changed_at
    return {"type": f"job.{job.state}", "timestamp": iso(moment), "data": job.to_json()}


def message_id(event: Mapping[str, Any]) -> str:
    """Id of an event: equal for every delivery attempt, different after the job was retried."""
    job = event["data"]
    return f"{job['state']}_{job['id']}_{job['bundle']}"


def signature(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """The value of the header webhook-signature. secret: "whsec_" and base64. timestamp: of the attempt, in Unix
    seconds. Raises ValueError for a malformed secret."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    digest = hmac.new(key, b"%s.%d.%s" % (message.encode(), timestamp, body), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def deliver(event: Mapping[str, Any], services: Services, now: datetime) -> Fate:
    """Makes one delivery attempt. The caller retries after every error that this raises: DNS and certificate errors may
    be temporary."""
    webhook = event["data"]["webhook"]
    key = services.registry.get("key", webhook["key"])
    if not key or not key.get("webhook_secret"):
        return "unsigned"
    body, message, timestamp = json.dumps(event).encode(), message_id(event), int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(key["webhook_secret"], message, timestamp, body),
    }
    if trace_id := event["data"].get("trace_id"):
        headers[trace.HEADER] = trace.traceparent(trace_id, hashlib.sha256(message.encode()).hexdigest()[:16])
    try:
        status = services.web.post(webhook["url"], headers, body)
    except (InvalidUrl, BlockedUrl):
        return "refused"
    if status == 410:
        return "gone"
    if not 200 <= status < 300:
        raise HostUnavailable(f"The receiver responded with status {status}.")
    return "delivered"
