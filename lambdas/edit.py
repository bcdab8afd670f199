"""Processes the SQS queue edits: generates the images of a job's edit and queues the job for the container."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.messages import one_by_one
from lambdas.observe import logger, observed
from maskdrop.editing import CALL_S, edit_job
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import JobMessage

MARGIN_MS = (CALL_S + 45) * 1000
"""Time that an invocation keeps for one call of the editor, and to write its image, in milliseconds."""


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> Any:
    return process(
        event,
        connect.settings(),
        connect.services(),
        partial(datetime.now, UTC),
        has_time=lambda: context.get_remaining_time_in_millis() > MARGIN_MS,
    )


def process(
    event: dict[str, Any],
    settings: Settings,
    services: Services,
    clock: Callable[[], datetime],
    *,
    has_time: Callable[[], bool] = lambda: True,
) -> Any:
    def one(record: SQSRecord) -> None:
        message = JobMessage.from_body(record.body)
        progress = edit_job(message, settings, services, clock, has_time=has_time)
        logger().info(
            "edit processed", extra={"job_id": message.job_id, "trace_id": message.trace_id, "progress": progress}
        )

    return one_by_one(event, one)
