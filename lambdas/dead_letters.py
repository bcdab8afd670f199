"""Runs every 5 minutes: fails or retries the jobs of messages that reached the maximum number of receives."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.adapters.queue import Message
from lambdas.observe import logger, metrics, observed
from maskdrop.bot import OWNER_PREFIX
from maskdrop.errors import ErrorInfo, SourceMissing
from maskdrop.flow import fail_dead_letters, parse_message, requeue_bundle
from maskdrop.serverless import failure
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import BundleMessage, Notification

REASON = "Processing failed after the maximum number of deliveries (server error). Upload the image again."

UNRECORDED = ErrorInfo(
    "not_recorded", "The response of the endpoint could not be recorded; the job is retried.", retryable=True
)

UNSENT = ErrorInfo("not_sent", "The bundle could not be sent to the endpoint; the job is retried.", retryable=True)


MARGIN_MS = 15_000
"""Time that an invocation keeps for the messages it has received, in milliseconds."""


class Queue(Protocol):
    def receive(self) -> Sequence[Message]: ...

    def delete(self, receipt: str) -> None: ...


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001  Lambda passes two
    return process(
        connect.dead_letters(),
        connect.settings(),
        connect.services(),
        datetime.now(UTC),
        has_time=lambda: context.get_remaining_time_in_millis() > MARGIN_MS,
    )


def process(
    queue: Queue, settings: Settings, services: Services, now: datetime, *, has_time: Callable[[], bool] = lambda: True
) -> dict[str, int]:
    """Processes the messages of the queue while there is time. Returns the number of those that it deleted, and of
    those that failed: they stay in the queue."""
    deleted = failed = 0
    while has_time() and (messages := queue.receive()):
        for message in messages:
            try:
                _process(message.body, settings, services, now)
                queue.delete(message.receipt)
            except Exception:  # noqa: BLE001  one message must not hold up the others
                logger().exception("dead letter kept")
                failed += 1
            else:
                deleted += 1
    logger().info("dead letters processed", extra={"deleted": deleted, "failed": failed})
    return {"deleted": deleted, "failed": failed}


def _process(text: str, settings: Settings, services: Services, now: datetime) -> None:
    """Raises Unavailable."""
    try:
        body = json.loads(text)
        if "telegram" in body:
            _log_failed_bot(update=body["telegram"]["update"])
        elif "detail" in body and body["detail"]["data"]["owner"].startswith(OWNER_PREFIX):
            _log_failed_bot(job_id=body["detail"]["data"]["id"])
        elif "detail" in body:
            _log_failed_webhook(body["detail"])
        elif "inferenceId" in body:
            requeue_bundle(Notification.from_body(text), UNRECORDED, settings, services, now)
        elif "bundle" in body:
            notification = failure(BundleMessage.from_body(text), UNSENT.message)
            requeue_bundle(notification, UNSENT, settings, services, now)
        else:
            fail_dead_letters(parse_message(text, now, services.presets), REASON, services, now)
    except (ValueError, KeyError, TypeError, SourceMissing) as error:
        # A message without a job, or whose bundle is deleted after 7 days, cannot be retried: logs its body; the metric
        # triggers an alarm. The sweep finds the jobs of the bundle.
        logger().error("unreadable dead letter", extra={"body": text, "error": repr(error)})
        metrics().add_metric("UnreadableMessages", MetricUnit.Count, 1)


def _log_failed_webhook(event: dict[str, Any]) -> None:
    """Logs and counts a webhook that failed after the maximum number of attempts. The job itself has finished."""
    data = event["data"]
    fields = {"job_id": data["id"], "trace_id": data.get("trace_id", ""), "url": data["webhook"]["url"]}
    logger().warning("webhook failed", extra=fields)
    metrics().add_metric("WebhooksGivenUp", MetricUnit.Count, 1)


def _log_failed_bot(**fields: Any) -> None:
    """Logs and counts an image or a result of the Telegram bot that failed after the maximum number of attempts."""
    logger().warning("bot message failed", extra=fields)
    metrics().add_metric("BotMessagesGivenUp", MetricUnit.Count, 1)
