"""`lambdas/webhooks.py`: sends the event of a finished job to the job's webhook."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from infra.function import Function
from infra.queues import WEBHOOKS_S
from infra.shared import SharedResources


class Webhooks(Function):
    """Delivers the events of the bus, so that the functions that finish jobs do not handle webhooks."""

    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        super().__init__(scope, construct_id, name="webhooks", shared=shared, memory_mb=512, timeout_s=WEBHOOKS_S)
        queues = shared.queues
        events.Rule(
            self,
            "FinishedJobs",
            event_bus=shared.bus,
            event_pattern=events.EventPattern(
                source=["maskdrop"], detail={"data": {"webhook": {"url": events.Match.exists()}}}
            ),
            targets=[
                targets.SqsQueue(
                    queues.webhooks,
                    dead_letter_queue=queues.dead,
                    message_group_id="$.detail.delivery.group",  # SQS delivers fairly among the owners
                )
            ],
        )
        self.function.add_event_source(
            sources.SqsEventSource(
                queues.webhooks,
                batch_size=1,  # a slow receiver delays only its own delivery
                max_batching_window=Duration.seconds(0),
                max_concurrency=shared.stage.source_concurrency,
                report_batch_item_failures=True,
            )
        )
        self.allow("sqs:SendMessage", on=queues.webhooks.queue_arn)
        shared.registry.allow(self.role, "dynamodb:GetItem", kinds=["secret"])
        shared.registry.allow(self.role, "dynamodb:PutItem", "dynamodb:DeleteItem", kinds=["slot"])
        shared.registry.allow(
            self.role,
            *("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem"),
            kinds=["receiver"],
        )
