"""Lambda function of the HTTP API behind API Gateway. The routes are in `lambdas/http/routes.py`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas import connect
from lambdas.http.routes import process
from lambdas.observe import observed


@observed
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return process(event, context, connect.settings(), connect.services(), datetime.now(UTC))
