"""`lambdas/dead_letters.py`: what was delivered too often in vain is failed, with its reason."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from infra.function import Function
from infra.parts import Parts
from infra.queues import DEAD_LETTERS_S
from infra.storage import BUNDLES_PREFIX


class DeadLetters(Function):
    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        super().__init__(scope, construct_id, name="dead_letters", parts=parts, memory_mb=512, timeout_s=DEAD_LETTERS_S)
        for queue in parts.queues.dead_letters:
            self.function.add_event_source(
                sources.SqsEventSource(
                    queue,
                    batch_size=10,
                    max_batching_window=Duration.seconds(1),
                    max_concurrency=2,
                    report_batch_item_failures=True,
                )
            )
        self.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=parts.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", on=parts.storage.results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        # Without it, S3 says 403 for an object that is not there.
        self.allow("s3:ListBucket", on=parts.storage.results.bucket_arn)
        self.allow("sqs:SendMessage", on=parts.queues.jobs.queue_arn)
        self.allow("events:PutEvents", on=parts.bus.event_bus_arn)
        parts.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
