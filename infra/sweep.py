"""`lambdas/sweep.py`: every 5 minutes, what was queued or submitted too long goes round again."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from constructs import Construct

from infra.function import Function
from infra.jobs_table import BY_STATE
from infra.nag import acknowledge
from infra.parts import Parts


class Sweep(Function):
    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        super().__init__(scope, construct_id, name="sweep", parts=parts, memory_mb=512, timeout_s=120)
        schedule = events.Rule(
            self,
            "Schedule",
            schedule=events.Schedule.rate(Duration.minutes(5)),
            # A call that failed is not repeated: the next one is due before a repetition would be.
            targets=[targets.LambdaFunction(self.function, retry_attempts=0)],
        )
        acknowledge(
            schedule, "Serverless-EventBusDLQ", "Nothing is lost with a call: the next one finds the same jobs."
        )
        self.allow("dynamodb:Query", on=parts.jobs.index_arn(BY_STATE))
        self.allow("dynamodb:GetItem", "dynamodb:UpdateItem", on=parts.jobs.table.table_arn)
        self.allow("sqs:SendMessage", on=parts.queues.jobs.queue_arn)
        self.allow("events:PutEvents", on=parts.bus.event_bus_arn)
