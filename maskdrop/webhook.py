"""Webhooks: the event of a finished job, posted to the URL of its request in the format of Standard Webhooks
(https://www.standardwebhooks.com, specification 1.0.0), whose libraries verify the signature.

The body is the event that EventBridge receives too, without `delivery`. The secret is that of the API key, from the
registry. A failed delivery is retried through the webhooks queue.

A receiver may take 15 seconds for each delivery. So that it delays no other owner's, an owner has at most
`Settings.webhooks_at_once` deliveries in progress, and a receiver that failed RECEIVER_FAILURES times gets none for
RECEIVER_PAUSE. Failures count by owner and host: receivers of several owners may share a host.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from maskdrop import trace
from maskdrop.errors import BlockedUrl, HostUnavailable, InvalidUrl, MaskdropError, Unavailable
from maskdrop.job import Job, folder_of, group_of
from maskdrop.record import iso
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.slots import slot

RETRY_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 36_000)
"""Seconds before the second, third … attempt: 28 hours in all. The specification's example has gaps of up to 20 hours;
the visibility timeout of SQS is 12 hours at most."""

SECRET_PREFIX = "whsec_"  # noqa: S105  prefix of every secret

RECEIVER_FAILURES = 3
"""Deliveries without a response, to one host for one owner, after which further ones fail at once."""

RECEIVER_PAUSE = timedelta(minutes=4)
"""Time from the first of these failures after which the receiver is tried again: less than the second gap in
RETRY_S."""

BUSY_S = (10, 30, 120, 300)
"""Seconds for which a delivery waits while its owner has too many in progress: the first time, the second …."""

DELIVERY_S = 30
"""Seconds after which the slot of a delivery expires: the timeout of the function."""

Fate = Literal["delivered", "gone", "refused", "unsigned"]
"""Final outcome of a delivery: accepted; rejected permanently (410); URL not allowed; no secret, or key revoked."""


def event_of(job: Job) -> dict[str, Any]:
    """The event of a finished job."""
    moment = job.finished_at or job.changed_at
    return {"type": f"job.{job.state}", "timestamp": iso(moment), "data": job.public()}


def bus_event(job: Job) -> dict[str, Any]:
    """The event as the bus carries it. For a job with a webhook it has `delivery`, which no receiver gets.

    key: name, in the registry, of the key that signs. group: message group of the owner in the webhooks queue.
    """
    event = event_of(job)
    return event | {"delivery": {"key": job.webhook.key, "group": group_of(job.owner)}} if job.webhook else event


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


class OwnerBusy(Unavailable):
    """The owner has too many deliveries in progress. The delivery waits; that costs no attempt."""

    code = "owner_busy"


def deliver(event: Mapping[str, Any], settings: Settings, services: Services, now: datetime) -> Fate:
    """Makes one delivery attempt. event: as `bus_event` returns it.

    The caller retries after every error that this raises: DNS and certificate errors may be temporary. Raises OwnerBusy
    where no attempt was made.
    """
    body = {name: value for name, value in event.items() if name != "delivery"}
    delivery, job = event["delivery"], event["data"]
    secret = (services.registry.get("secret", delivery["key"]) or {}).get("webhook_secret")
    if not secret:
        return "unsigned"
    slots = slot(
        services.registry,
        "webhooks",
        job["owner"],
        count=settings.webhooks_at_once,
        seconds=DELIVERY_S,
        now=now,
    )
    with slots as held:
        if not held:
            raise OwnerBusy(f"{settings.webhooks_at_once} webhooks of this owner are in progress, the maximum.")
        return _post(job, body, secret, services, now)


def _post(job: Mapping[str, Any], event: Mapping[str, Any], secret: str, services: Services, now: datetime) -> Fate:
    body, message, timestamp = json.dumps(event).encode(), message_id(event), int(now.timestamp())
    headers = {
        "content-type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(secret, message, timestamp, body),
    }
    if trace_id := job.get("trace_id"):
        headers[trace.HEADER] = trace.traceparent(trace_id, hashlib.sha256(message.encode()).hexdigest()[:16])
    url = job["webhook"]["url"]
    receiver = f"{folder_of(job['owner'])}/{urlsplit(url).hostname}"
    failures = services.registry.get("receiver", receiver) or {}
    if failures.get("failures", 0) >= RECEIVER_FAILURES:
        raise HostUnavailable(f"The receiver did not respond {RECEIVER_FAILURES} times and is paused.")
    try:
        status = services.web.post(url, headers, body)
    except (InvalidUrl, BlockedUrl):
        return "refused"
    except MaskdropError:
        services.registry.add("receiver", receiver, {"failures": 1}, expires_at=now + RECEIVER_PAUSE)
        raise
    if failures:
        services.registry.delete("receiver", receiver)
    if status == 410:
        return "gone"
    if not 200 <= status < 300:
        raise HostUnavailable(f"The receiver responded with status {status}.")
    return "delivered"
