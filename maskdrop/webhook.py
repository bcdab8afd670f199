"""Webhooks: the end of a job, told to the address that its request named, in the form of Standard Webhooks
(https://www.standardwebhooks.com, specification 1.0.0), so that receivers verify it with any of its libraries.

The body is an event, the very one that EventBridge carries; the secret is its key's, from the registry. What does not
arrive comes again through its queue.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from maskdrop.errors import BlockedUrl, HostUnavailable, InvalidUrl
from maskdrop.job import Job
from maskdrop.record import iso
from maskdrop.services import Services

RETRY_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""Seconds before the second, third … attempt: 28 hours in all. The specification's own example goes on to 20 hours
between two; SQS hides a message for 12 at most."""

SECRET_PREFIX = "whsec_"  # noqa: S105  what every secret begins with

Fate = Literal["delivered", "gone", "refused", "unsigned"]
"""What became of a webhook for good: taken; no longer wanted (410); an address that is not asked; a key that is revoked
or has no secret."""


def event_of(job: Job) -> dict[str, Any]:
    """The end of a job as an event."""
    moment = job.finished_at or job.changed_at
    return {"type": f"job.{job.state}", "timestamp": iso(moment), "data": job.to_json()}


def message_id(event: Mapping[str, Any]) -> str:
    """The same at every attempt, and when the same end is told twice; another when the job was tried anew."""
    job = event["data"]
    return f"{job['state']}_{job['id']}_{job['bundle']}"


def signature(secret: str, message: str, timestamp: int, body: bytes) -> str:
    """secret: "whsec_" and base64. timestamp: of the attempt, in Unix seconds. Raises ValueError for a secret that is
    none."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    digest = hmac.new(key, b"%s.%d.%s" % (message.encode(), timestamp, body), hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def deliver(event: Mapping[str, Any], services: Services, now: datetime) -> Fate:
    """One attempt. Whatever it raises is worth another: even a name that is not found and a certificate that has run
    out may be mended tomorrow."""
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
    try:
        status = services.web.post(webhook["url"], headers, body)
    except (InvalidUrl, BlockedUrl):
        return "refused"
    if status == 410:
        return "gone"
    if not 200 <= status < 300:
        raise HostUnavailable(f"The receiver answered {status}.")
    return "delivered"
