"""`lambdas/record.py`: what the endpoint announces is recorded and told."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.function import Function
from infra.parts import Parts
from infra.queues import RECORD_S
from infra.storage import BUNDLES_PREFIX

BATCH = 10
"""Notifications a call, of up to 64 images each."""


class Record(Function):
    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        super().__init__(scope, construct_id, name="record", parts=parts, memory_mb=1024, timeout_s=RECORD_S)
        results = parts.queues.results
        for topic in (parts.bulk.completed, parts.bulk.failed):
            topic.add_subscription(
                subscriptions.SqsSubscription(
                    results, raw_message_delivery=True, dead_letter_queue=parts.queues.results_dead
                )
            )
        self.function.add_event_source(
            sources.SqsEventSource(
                results,
                batch_size=BATCH,
                max_batching_window=Duration.seconds(1),
                max_concurrency=10,
                report_batch_item_failures=True,
            )
        )
        self.allow("dynamodb:GetItem", "dynamodb:UpdateItem", on=parts.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", on=parts.storage.results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        # Without it, S3 says 403 for an object that is not there.
        self.allow("s3:ListBucket", on=parts.storage.results.bucket_arn)
        self.allow("sqs:SendMessage", on=parts.queues.jobs.queue_arn)
        self.allow("events:PutEvents", on=parts.bus.event_bus_arn)
