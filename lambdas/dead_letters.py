"""The dead-letter queues -> what was delivered too often in vain is failed, with its reason; nothing stays unknown."""

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
from maskdrop.flow import bury, unsettle, waiting_in
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import Notification

REASON = "Its message was delivered too often in vain: a part of the service was out of order. Upload it again."

UNRECORDED = ErrorInfo("not_recorded", "The answer of the endpoint could not be recorded.", retryable=True)


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> Any:  # noqa: ARG001  Lambda passes two
    return process(event, connect.settings(), connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], settings: Settings, services: Services, now: datetime) -> Any:
    def one(record: SQSRecord) -> None:
        try:
            body = json.loads(record.body)
            if "detail" in body:
                _give_up(body["detail"])
            elif "inferenceId" in body:
                unsettle(Notification.from_body(record.body), UNRECORDED, settings, services, now)
            else:
                bury(waiting_in(record.body, now, services.presets), REASON, services, now)
        except (ValueError, KeyError, TypeError) as error:
            # It names no job, and no further delivery would change that: its text is kept here, and an alarm tells.
            logger().error("unreadable dead letter", extra={"body": record.body, "error": repr(error)})
            metrics().add_metric("UnreadableMessages", MetricUnit.Count, 1)

    return one_by_one(event, one)


def _give_up(event: dict[str, Any]) -> None:
    """Of a webhook that its receiver never took; the job itself has ended, and GET /v1/jobs/{id} says how."""
    data = event["data"]
    logger().warning("webhook given up", extra={"job_id": data["id"], "url": data["webhook"]["url"]})
    metrics().add_metric("WebhooksGivenUp", MetricUnit.Count, 1)
