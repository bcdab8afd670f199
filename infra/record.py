"""`lambdas/record.py`: records the results that the endpoint notifies and publishes the job events."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.function import Function
from infra.queues import RECORD_S
from infra.shared import SharedResources
from infra.storage import BUNDLES_PREFIX

BATCH = 10
"""Notifications per invocation, each for up to 64 images."""


class Record(Function):
    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        super().__init__(
            scope, construct_id, name="record", shared=shared, memory_mb=1024, timeout_s=RECORD_S, in_vpc=True
        )
        results = shared.queues.results
        for topic in (shared.notifications.completed, shared.notifications.failed):
            topic.add_subscription(
                subscriptions.SqsSubscription(results, raw_message_delivery=True, dead_letter_queue=shared.queues.dead)
            )
        self.function.add_event_source(
            sources.SqsEventSource(
                results,
                batch_size=BATCH,
                max_batching_window=Duration.seconds(1),
                max_concurrency=shared.stage.source_concurrency,
                report_batch_item_failures=True,
            )
        )
        self.allow("dynamodb:GetItem", "dynamodb:UpdateItem", on=shared.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", on=shared.storage.results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        # Without it, S3 returns 403 for a missing object.
        self.allow("s3:ListBucket", on=shared.storage.results.bucket_arn)
        for queue in shared.stage_queues:
            self.allow("sqs:SendMessage", on=queue)
        self.allow("events:PutEvents", on=shared.bus.event_bus_arn)
        shared.registry.allow(
            self.role, *("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"), kinds=["valve"]
        )
