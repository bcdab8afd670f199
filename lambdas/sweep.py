"""Runs every 5 minutes: retries jobs that have been queued or submitted for too long."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.flow import sweep
from maskdrop.services import Services
from maskdrop.settings import Settings


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001  Lambda passes two
    return process(connect.settings(), connect.services(), datetime.now(UTC))


def process(settings: Settings, services: Services, now: datetime) -> dict[str, int]:
    moved = sweep(settings, services, now)
    logger().info("overdue jobs retried", extra={"moved": moved})
    return {"moved": moved}
