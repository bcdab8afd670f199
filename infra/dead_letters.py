"""`lambdas/dead_letters.py`: fails the jobs of messages that reached a dead-letter queue, with the reason."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from infra.function import Function
from infra.queues import DEAD_LETTERS_S
from infra.shared import SharedResources
from infra.storage import BUNDLES_PREFIX


class DeadLetters(Function):
    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        super().__init__(
            scope, construct_id, name="dead_letters", shared=shared, memory_mb=512, timeout_s=DEAD_LETTERS_S
        )
        for queue in shared.queues.dead_letters:
            self.function.add_event_source(
                sources.SqsEventSource(
                    queue,
                    batch_size=10,
                    max_batching_window=Duration.seconds(1),
                    max_concurrency=2,
                    report_batch_item_failures=True,
                )
            )
        self.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=shared.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", on=shared.storage.results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        # Without it, S3 returns 403 for a missing object.
        self.allow("s3:ListBucket", on=shared.storage.results.bucket_arn)
        self.allow("sqs:SendMessage", on=shared.queues.jobs.queue_arn)
        self.allow("events:PutEvents", on=shared.bus.event_bus_arn)
        shared.registry.allow(
            self.role, *("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"), kinds=["valve"]
        )
        shared.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
