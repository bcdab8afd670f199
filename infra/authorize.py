"""`lambdas/authorize.py`: the Lambda authorizer, which maps the API key of a request to its owner."""

from __future__ import annotations

from constructs import Construct

from infra.function import Function
from infra.shared import SharedResources

TIMEOUT_S = 5
"""Seconds for one read from a table. After that, a retry by the caller is faster."""


class Authorize(Function):
    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        super().__init__(scope, construct_id, name="authorize", shared=shared, memory_mb=1024, timeout_s=TIMEOUT_S)
        shared.registry.allow(self.role, "dynamodb:GetItem", kinds=["key"])
