"""SQS webhooks (events of jobs that have one, from EventBridge) -> posted to their addresses, as often as it takes."""

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
    """Answers with the messages that must come back; each says when by its own visibility."""
    again: list[str] = []
    for record in event["Records"]:
        told = json.loads(record["body"])["detail"]
        about = {"job_id": told["data"]["id"], "url": told["data"]["webhook"]["url"]}
        attempt = int(record["attributes"]["ApproximateReceiveCount"])
        try:
            logger().info("webhook", extra={**about, "fate": deliver(told, services, now), "attempt": attempt})
        except MaskdropError as error:
            # After the last attempt it comes once more, only to be moved to the dead letters.
            wait = RETRY_S[attempt - 1] if attempt <= len(RETRY_S) else 0
            logger().warning("webhook put off", extra={**about, "why": error.message, "attempt": attempt, "wait": wait})
            services.webhooks_queue.put_off(record["receiptHandle"], seconds=wait)
            again.append(record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message} for message in again]}
