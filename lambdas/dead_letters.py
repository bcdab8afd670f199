"""Processes the dead-letter queues: fails the jobs whose messages reached the maximum number of receives."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.messages import one_by_one
from lambdas.observe import logger, metrics, observed
from maskdrop.errors import ErrorInfo
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


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> Any:  # noqa: ARG001  Lambda passes two
    return process(event, connect.settings(), connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], settings: Settings, services: Services, now: datetime) -> Any:
    def one(record: SQSRecord) -> None:
        try:
            body = json.loads(record.body)
            if "detail" in body:
                _log_failed_webhook(body["detail"])
            elif "inferenceId" in body:
                requeue_bundle(Notification.from_body(record.body), UNRECORDED, settings, services, now)
            elif "bundle" in body:
                notification = failure(BundleMessage.from_body(record.body), UNSENT.message)
                requeue_bundle(notification, UNSENT, settings, services, now)
            else:
                fail_dead_letters(parse_message(record.body, now, services.presets), REASON, services, now)
        except (ValueError, KeyError, TypeError) as error:
            # A message without a job cannot be retried: logs its body; the metric triggers an alarm.
            logger().error("unreadable dead letter", extra={"body": record.body, "error": repr(error)})
            metrics().add_metric("UnreadableMessages", MetricUnit.Count, 1)

    return one_by_one(event, one)


def _log_failed_webhook(event: dict[str, Any]) -> None:
    """Logs and counts a webhook that failed after the maximum number of attempts. The job itself has finished."""
    data = event["data"]
    logger().warning("webhook failed", extra={"job_id": data["id"], "url": data["webhook"]["url"]})
    metrics().add_metric("WebhooksGivenUp", MetricUnit.Count, 1)
