"""`lambdas/authorize.py`: asked by API Gateway whose key a call bears."""

from __future__ import annotations

from constructs import Construct

from infra.function import Function
from infra.parts import Parts

TIMEOUT_S = 5
"""One read from a table. A caller who waited longer would rather try again."""


class Authorize(Function):
    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        super().__init__(scope, construct_id, name="authorize", parts=parts, memory_mb=1024, timeout_s=TIMEOUT_S)
        parts.registry.allow(self.role, "dynamodb:GetItem", kinds=["key"])
