"""Processes the SQS queue webhooks (EventBridge events of jobs with a webhook): posts each event to its URL."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.errors import MaskdropError
from maskdrop.services import Services
from maskdrop.webhook import RETRY_S, deliver


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  Lambda passes two
    return process(event, connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], services: Services, now: datetime) -> dict[str, Any]:
    """Returns the partial batch response: the messages to retry. Sets the visibility timeout of each to its delay."""
    failed: list[str] = []
    for record in event["Records"]:
        detail = json.loads(record["body"])["detail"]
        job = detail["data"]
        fields = {"job_id": job["id"], "trace_id": job.get("trace_id", ""), "url": job["webhook"]["url"]}
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
        try:
            outcome = deliver(detail, services, now)
            logger().info("webhook", extra={**fields, "outcome": outcome, "attempt": attempt})
        except MaskdropError as error:
            # After the last attempt, SQS moves the message to the dead-letter queue at its next receive.
            wait = RETRY_S[attempt - 1] if attempt <= len(RETRY_S) else 0
            logger().warning(
                "webhook retried", extra={**fields, "why": error.message, "attempt": attempt, "wait": wait}
            )
            services.webhooks_queue.hide(record["receiptHandle"], seconds=wait)
            failed.append(record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
