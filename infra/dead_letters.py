"""`lambdas/dead_letters.py`: every 5 minutes, fails the jobs of dead letters with the reason, or retries them."""

from __future__ import annotations

from constructs import Construct

from infra.function import Function
from infra.shared import SharedResources
from infra.storage import BUNDLES_PREFIX

TIMEOUT_S = 240
"""Timeout in seconds: less than the interval of the schedule, so that one invocation runs at a time."""


class DeadLetters(Function):
    """Reads its queue on a schedule. An event source would take at least 2 of the 10 concurrent executions of a new
    account, and polls an empty queue 650,000 times a month."""

    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        super().__init__(
            scope, construct_id, name="dead_letters", shared=shared, memory_mb=512, timeout_s=TIMEOUT_S, in_vpc=True
        )
        self.run_every(minutes=5)
        self.allow("sqs:ReceiveMessage", "sqs:DeleteMessage", on=shared.queues.dead.queue_arn)
        self.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=shared.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", on=shared.storage.results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        # Without it, S3 returns 403 for a missing object.
        self.allow("s3:ListBucket", on=shared.storage.results.bucket_arn)
        for queue in shared.stage_queues:
            self.allow("sqs:SendMessage", on=queue)
        self.allow("events:PutEvents", on=shared.bus.event_bus_arn)
        shared.registry.allow(
            self.role, *("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"), kinds=["valve"]
        )
        shared.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
