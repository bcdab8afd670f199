"""Processes the SQS queues intake (S3 events) and jobs (new and retried jobs): claims, bundles and submits jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.errors import MaskdropError
from maskdrop.flow import admit, waiting_in
from maskdrop.job import Job
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import JobMessage


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:  # noqa: ARG001  Lambda passes two
    return process(event, connect.settings(), connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], settings: Settings, services: Services, now: datetime) -> dict[str, Any]:
    """Returns the partial batch response: the messages to retry.

    Does not use Powertools' batch processor, which processes messages one at a time: here they form bundles.
    """
    waiting: list[Job | JobMessage] = []
    owners: list[str] = []
    refused: set[str] = set()
    for record in event["Records"]:
        try:
            announced = waiting_in(record["body"], now, services.presets)
        except (ValueError, KeyError, TypeError, MaskdropError) as error:
            # An unreadable message is retried until it reaches the dead-letter queue; `dead_letters` logs its body.
            logger().warning("message not read", extra={"message_id": record["messageId"], "error": repr(error)})
            refused.add(record["messageId"])
            continue
        waiting.extend(announced)
        owners.extend([record["messageId"]] * len(announced))
    for owner, fault in zip(owners, admit(waiting, settings, services, now), strict=True):
        if fault:
            logger().warning("message returned", extra={"message_id": owner, "code": fault.code, "why": fault.message})
            refused.add(owner)
    logger().info("admitted", extra={"pictures": len(waiting), "returned": len(refused)})
    return {"batchItemFailures": [{"itemIdentifier": message} for message in sorted(refused)]}
