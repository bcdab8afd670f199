"""SQS intake (photos dropped) and SQS jobs (jobs made or sent round again) -> claimed, bundled, submitted."""

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
    """Answers with the messages that must come back. Powertools' batch processor, which the other consumers use, takes
    messages one by one; here they are taken by the bundle."""
    waiting: list[Job | JobMessage] = []
    owners: list[str] = []
    refused: set[str] = set()
    for record in event["Records"]:
        try:
            announced = waiting_in(record["body"], now, services.presets)
        except (ValueError, KeyError, TypeError, MaskdropError) as error:
            # What is unreadable returns until it is dead: then `dead_letters` keeps its text in the log.
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
