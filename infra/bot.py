"""`lambdas/bot.py`: the Telegram bot, in a stage with `[bot]`."""

from __future__ import annotations

from dataclasses import fields

from aws_cdk import Arn, ArnComponents, Duration, Stack
from aws_cdk import aws_apigateway as apigateway
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.api import Api
from infra.function import Function
from infra.queues import BOT_S
from infra.shared import SharedResources
from infra.stages import BOT_EXECUTIONS, BotOptions
from maskdrop.bot import OWNER_PREFIX, PREFIX, BotSettings
from maskdrop.job import JOBS_PREFIX, UPLOADS_PREFIX

PATH = "telegram"
"""Path of the webhook in the API. Telegram authenticates with a secret token instead of a key."""


class Bot(Function):
    """The function, the route of its webhook, and the rule for the events of its jobs.

    queue: images of chats, and events of their finished jobs. url: of the webhook.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        shared: SharedResources,
        options: BotOptions,
        api: Api,
        queue: sqs.Queue,
    ) -> None:
        super().__init__(scope, construct_id, name="bot", shared=shared, memory_mb=512, timeout_s=BOT_S)
        self.url = f"{api.domain.url if api.domain else api.url}/{PATH}"
        for name, value in environment(options, queue.queue_url).items():
            self.function.add_environment(name, value)
        api.rest.root.add_resource(PATH).add_method(
            "POST", apigateway.LambdaIntegration(self.function, allow_test_invoke=False)
        )
        events.Rule(
            self,
            "FinishedJobs",
            event_bus=shared.bus,
            event_pattern=events.EventPattern(
                source=["maskdrop"], detail={"data": {"owner": events.Match.prefix(OWNER_PREFIX)}}
            ),
            targets=[targets.SqsQueue(queue, dead_letter_queue=shared.queues.dead)],
        )
        self.function.add_event_source(
            sources.SqsEventSource(
                queue,
                batch_size=1,  # a result of 50 MB takes up to 40 s
                max_batching_window=Duration.seconds(0),
                max_concurrency=BOT_EXECUTIONS,
                report_batch_item_failures=True,
            )
        )
        self._allow(shared, options, queue)

    def _allow(self, shared: SharedResources, options: BotOptions, queue: sqs.Queue) -> None:
        # Decrypting with the AWS managed key of SSM needs no permission.
        parameter = ArnComponents(service="ssm", resource="parameter", resource_name=options.parameter.lstrip("/"))
        self.allow("ssm:GetParameter", on=Arn.format(parameter, Stack.of(self)))
        self.allow("sqs:SendMessage", on=queue.queue_arn)
        self.allow("sqs:SendMessage", on=shared.queues.jobs.queue_arn)
        self.allow("dynamodb:GetItem", "dynamodb:PutItem", on=shared.jobs.table.table_arn)
        reads, writes, counts = "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"
        shared.registry.allow(self.role, reads, writes, "dynamodb:DeleteItem", kinds=["idempotency"])
        shared.registry.allow(self.role, reads, writes, kinds=["chat"])
        shared.registry.allow(self.role, writes, counts, kinds=["window", "usage"])
        shared.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
        inbox, results = shared.storage.inbox, shared.storage.results
        self.allow_objects("s3:GetObject", "s3:PutObject", on=inbox.arn_for_objects(f"{UPLOADS_PREFIX}*"))
        self.allow_objects("s3:GetObject", on=results.arn_for_objects(f"{JOBS_PREFIX}*"))
        for bucket in (inbox, results):  # without it, S3 returns 403 for a missing object
            self.allow("s3:ListBucket", on=bucket.bucket_arn)


def environment(options: BotOptions, queue_url: str) -> dict[str, str]:
    """Returns the environment that `BotSettings.from_env` reads; defaults are omitted."""
    settings = BotSettings(
        parameter=options.parameter,
        queue_url=queue_url,
        api_url=options.api_url,
        chats=" ".join(map(str, options.chats)),
        messages_per_minute=options.messages_per_minute,
        images_per_day=options.images_per_day,
    )
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    chosen = {field.name: values[field.name] for field in fields(settings) if values[field.name] != field.default}
    return {PREFIX + name.upper(): str(value) for name, value in chosen.items()}
