"""Bulk processing through a serverless endpoint. It has no queue and no notifications, so bundles are messages on the
SQS queue `bundles`, and the function `invoke` sends them to the endpoint and notifies of the responses.

    bundle message ──invoke──► response  ──► bundles/out/<bundle>.out and the notification Completed
                       ▲   ├─► failure   ──► the notification Failed
                       │   └─► refusal ──┐
                       └──after a delay──┘
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Literal

from maskdrop.errors import EndpointFailed, EndpointUnavailable
from maskdrop.flow import DELAY_S, RESPONSES_PREFIX
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import BundleMessage, Notification, split_s3_uri

EXPIRED = "The bundle expired in the queue: the endpoint did not accept it in time."


def invoke_bundle(
    message: BundleMessage, settings: Settings, services: Services, now: datetime
) -> Literal["completed", "failed", "refused"]:
    """Sends one bundle to the endpoint and sends the notification of its response.

    A refused bundle returns to its queue as a new message with a delay, so that it has no limit of receives. After its
    `expires_at`, its jobs return to the jobs queue. Repeatable: the container finds existing results, and recording
    them twice changes nothing.
    """
    if now >= message.expires_at:
        return _notify(failure(message, EXPIRED), services)
    bundle = services.storage.read(*split_s3_uri(message.input))
    try:
        response = services.serverless.invoke(bundle)
    except EndpointFailed as error:
        return _notify(failure(message, error.message), services)
    except EndpointUnavailable:
        delay_s = DELAY_S[min(message.refusals, len(DELAY_S) - 1)]
        services.bundles_queue.send([replace(message, refusals=message.refusals + 1).to_body()], delay_s=delay_s)
        return "refused"
    key = f"{RESPONSES_PREFIX}{message.bundle}.out"
    services.storage.write(settings.results, key, response, "application/json")
    output = f"s3://{settings.results}/{key}"
    return _notify(Notification(message.bundle, True, message.input, output, ""), services)


def failure(message: BundleMessage, reason: str) -> Notification:
    """The notification of a bundle without a response."""
    return Notification(message.bundle, False, message.input, "", reason)


def _notify(notification: Notification, services: Services) -> Literal["completed", "failed"]:
    services.results_queue.send([notification.to_body()])
    return "completed" if notification.completed else "failed"
