"""Processes the SQS queue webhooks (EventBridge events of jobs with a webhook): posts each event to its URL.

A delivery whose owner has too many in progress returns to the queue as a new, delayed message, which costs no attempt:
`earlier` has the attempts before it, and `waits` how often the delivery has waited.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.errors import MaskdropError
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.webhook import BUSY_S, RETRY_S, OwnerBusy, deliver


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  Lambda passes two
    return process(event, connect.settings(), connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], settings: Settings, services: Services, now: datetime) -> dict[str, Any]:
    """Returns the partial batch response: the messages to retry. Sets the visibility timeout of each to its delay."""
    failed: list[str] = []
    for record in event["Records"]:
        message = json.loads(record["body"])
        detail, earlier, waits = message["detail"], message.get("earlier", 0), message.get("waits", 0)
        job, attempt = detail["data"], earlier + int(record["attributes"]["ApproximateReceiveCount"])
        if attempt > len(RETRY_S) + 1:  # the receives of a message that has waited start again
            failed.append(record["messageId"])
            continue
        fields = {"job_id": job["id"], "trace_id": job.get("trace_id", ""), "url": job["webhook"]["url"]}
        try:
            outcome = deliver(detail, settings, services, now)
            logger().info("webhook", extra={**fields, "outcome": outcome, "attempt": attempt})
        except OwnerBusy:
            later = json.dumps({**message, "earlier": attempt - 1, "waits": waits + 1})
            delay_s = BUSY_S[min(waits, len(BUSY_S) - 1)]
            services.webhooks_queue.send([later], delay_s=delay_s, group=detail["delivery"]["group"])
        except MaskdropError as error:
            # After the last attempt, SQS moves the message to the dead-letter queue at its next receive.
            wait = RETRY_S[attempt - 1] if attempt <= len(RETRY_S) else 0
            logger().warning(
                "webhook retried", extra={**fields, "why": error.message, "attempt": attempt, "wait": wait}
            )
            services.webhooks_queue.hide(record["receiptHandle"], seconds=wait)
            failed.append(record["messageId"])
    return {"batchItemFailures": [{"itemIdentifier": message} for message in failed]}
