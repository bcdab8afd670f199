"""Processes the SQS queue bundles: sends each bundle to the serverless endpoint and notifies of its response."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.messages import one_by_one
from lambdas.observe import logger, metrics, observed
from maskdrop.serverless import invoke_bundle
from maskdrop.services import Services
from maskdrop.settings import Settings
from maskdrop.wire import BundleMessage


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> Any:  # noqa: ARG001  Lambda passes two
    return process(event, connect.settings(), connect.services(), datetime.now(UTC))


def process(event: dict[str, Any], settings: Settings, services: Services, now: datetime) -> Any:
    def one(record: SQSRecord) -> None:
        message = BundleMessage.from_body(record.body)
        outcome = invoke_bundle(message, settings, services, now)
        logger().info("bundle sent", extra={"bundle": message.bundle, "outcome": outcome, "refusals": message.refusals})
        if outcome == "refused":
            metrics().add_metric("BundlesRefused", MetricUnit.Count, 1)

    return one_by_one(event, one)
