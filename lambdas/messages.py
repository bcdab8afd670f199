"""Processes a batch of SQS messages one at a time; only failed messages are retried."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

from lambdas.observe import logger


def one_by_one(event: dict[str, Any], process: Callable[[SQSRecord], None]) -> Any:
    """Calls `process` for each message. Returns the partial batch response; logs the exception of a failed message."""

    def process_and_log(record: SQSRecord) -> None:
        try:
            process(record)
        except Exception:
            logger().exception("message returned", extra={"message_id": record.message_id})
            raise

    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return process_partial_response(event=event, record_handler=process_and_log, processor=processor)
