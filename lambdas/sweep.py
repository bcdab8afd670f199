"""Runs every 5 minutes: retries jobs that have been queued or submitted for too long."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.observe import logger, observed
from maskdrop.flow import sweep
from maskdrop.services import Services
from maskdrop.settings import Settings

MARGIN_MS = 40_000
"""Time that an invocation keeps for one call of `sweep`, in milliseconds: 1,000 jobs of each state take about 12 s of
computing time, and wait less than that for the table and the queue."""


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001  Lambda passes two
    return process(
        connect.settings(),
        connect.services(),
        datetime.now(UTC),
        has_time=lambda: context.get_remaining_time_in_millis() > MARGIN_MS,
    )


def process(
    settings: Settings, services: Services, now: datetime, *, has_time: Callable[[], bool] = lambda: True
) -> dict[str, int]:
    """Retries overdue jobs while there are any and there is time: the change of a mode deletes an endpoint with up to
    720,000 images."""
    moved = 0
    while has_time() and (count := sweep(settings, services, now)):
        moved += count
    logger().info("overdue jobs retried", extra={"moved": moved})
    return {"moved": moved}
