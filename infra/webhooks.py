"""`lambdas/webhooks.py`: the ends of jobs that have a webhook are posted to it."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from infra.function import Function
from infra.parts import Parts
from infra.queues import WEBHOOKS_S

AT_ONCE = 10
"""Posts at once. A receiver that takes its time holds up one of them; so a call has one message."""


class Webhooks(Function):
    """What goes out is what is told on the bus, so whoever ends a job needs to know of no webhook."""

    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        super().__init__(scope, construct_id, name="webhooks", parts=parts, memory_mb=512, timeout_s=WEBHOOKS_S)
        queues = parts.queues
        events.Rule(
            self,
            "Told",
            event_bus=parts.bus,
            event_pattern=events.EventPattern(
                source=["maskdrop"], detail={"data": {"webhook": {"url": events.Match.exists()}}}
            ),
            targets=[targets.SqsQueue(queues.webhooks, dead_letter_queue=queues.webhooks_dead)],
        )
        self.function.add_event_source(
            sources.SqsEventSource(
                queues.webhooks,
                batch_size=1,
                max_batching_window=Duration.seconds(0),
                max_concurrency=AT_ONCE,
                report_batch_item_failures=True,
            )
        )
        parts.registry.allow(self.role, "dynamodb:GetItem", kinds=["key"])
