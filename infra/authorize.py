"""`lambdas/authorize.py`: the Lambda authorizer, which maps the API key of a request to its owner."""

from __future__ import annotations

from constructs import Construct

from infra.function import Function
from infra.shared import SharedResources

TIMEOUT_S = 8
"""Timeout in seconds: the two attempts of `lambdas.connect.keys` and the start of its client. So the function ends with
an error instead of a timeout, after which Lambda starts it again."""


class Authorize(Function):
    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        super().__init__(scope, construct_id, name="authorize", shared=shared, memory_mb=1024, timeout_s=TIMEOUT_S)
        shared.registry.allow(self.role, "dynamodb:GetItem", kinds=["key"])
