"""Processes the SQS queue results (SageMaker notifications through SNS): records and publishes each job's outcome."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.messages import one_by_one
from lambdas.observe import logger, metrics, observed
from maskdrop.flow import record_bundle
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import Notification


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> Any:  # noqa: ARG001  Lambda passes two
    return process(event, connect.settings(), connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], settings: Settings, services: Services, now: datetime) -> Any:
    def one(record: SQSRecord) -> None:
        notification = Notification.from_body(record.body)
        failure = record_bundle(notification, settings, services, now)
        if failure:
            metrics().add_metric("BundlesFailed", MetricUnit.Count, 1)
            logger().warning("bundle failed", extra={"bundle": notification.bundle, "why": failure})
        logger().info("notification recorded", extra={"bundle": notification.bundle, "completed": not failure})

    return one_by_one(event, one)
