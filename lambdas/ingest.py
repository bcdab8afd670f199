"""Processes the SQS queue jobs (S3 events, new and retried jobs): claims, bundles and submits jobs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.errors import MaskdropError
from maskdrop.flow import admit, parse_message
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
    jobs: list[Job | JobMessage] = []
    message_ids: list[str] = []
    failed: set[str] = set()
    for record in event["Records"]:
        try:
            parsed = parse_message(record["body"], now, services.presets)
        except (ValueError, KeyError, TypeError, MaskdropError) as error:
            # An unreadable message is retried until it reaches the dead-letter queue; `dead_letters` logs its body.
            logger().warning("unreadable message", extra={"message_id": record["messageId"], "error": repr(error)})
            failed.add(record["messageId"])
            continue
        jobs.extend(parsed)
        message_ids.extend([record["messageId"]] * len(parsed))
    for message_id, info in zip(message_ids, admit(jobs, settings, services, now), strict=True):
        if info:
            extra = {"message_id": message_id, "code": info.code, "why": info.message}
            logger().warning("message returned", extra=extra)
            failed.add(message_id)
    fields = {"jobs": len(jobs), "returned": len(failed), "trace_ids": [job.trace_id for job in jobs]}
    logger().info("messages processed", extra=fields)
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in sorted(failed)]}
