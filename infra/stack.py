"""The application stack. `make up` deploys the same template into the local emulator."""

from __future__ import annotations

from aws_cdk import CfnOutput
from aws_cdk import aws_events as events
from constructs import Construct

from infra.alarms import Alarms
from infra.api import Api
from infra.authorize import Authorize
from infra.bot import Bot
from infra.bundle import lambda_code
from infra.dashboard import Dashboard
from infra.dead_letters import DeadLetters
from infra.edit import Edit
from infra.ingest import Ingest
from infra.invoke import Invoke
from infra.jobs_table import JobsTable
from infra.malware import MalwareScan
from infra.network import NetworkStack
from infra.notifications import Notifications
from infra.queues import Queues
from infra.record import Record
from infra.registry import Registry
from infra.shared import SharedResources
from infra.stage_stack import StageStack
from infra.stages import Stage
from infra.storage import Storage
from infra.sweep import Sweep
from infra.webhooks import Webhooks


class MaskdropStack(StageStack):
    """All resources except the image, the endpoints and the budget. The functions name the endpoints, so that the stack
    imports nothing from another one."""

    def __init__(self, scope: Construct, *, stage: Stage, network: NetworkStack | None) -> None:
        super().__init__(scope, "Maskdrop", stage=stage, description="background removal in your own account")
        # 1. Buckets store the photos and notify the queues.
        queues = Queues(self, "Queues", stage=stage)
        storage = Storage(self, "Storage", stage=stage, jobs=queues.jobs)
        if stage.malware_scan:
            MalwareScan(self, "MalwareScan", stage=stage, inbox=storage.inbox)

        # 2. Tables store the jobs; the event bus publishes their events.
        jobs = JobsTable(self, "Jobs", stage=stage)
        registry = Registry(self, "Registry", stage=stage)
        bus = events.EventBus(self, "Bus", event_bus_name=f"maskdrop-{stage.name}")

        # 3. Topics receive the notifications of the endpoint; its stack is separate.
        notifications = Notifications(self, "Notifications")

        # 4. Functions pass references to images, never the images.
        shared = SharedResources(
            stage=stage,
            code=lambda_code(),
            queues=queues,
            storage=storage,
            jobs=jobs,
            registry=registry,
            notifications=notifications,
            bus=bus,
            network=network,
        )
        self.shared = shared
        ingest = Ingest(self, "Ingest", shared=shared)
        record = Record(self, "Record", shared=shared)
        sweep = Sweep(self, "Sweep", shared=shared)
        dead_letters = DeadLetters(self, "DeadLetters", shared=shared)
        webhooks = Webhooks(self, "Webhooks", shared=shared)
        invoke = [Invoke(self, "Invoke", shared=shared, bundles=queues.bundles)] if queues.bundles else []
        edit = [Edit(self, "Edit", shared=shared, edits=queues.edits)] if queues.edits else []

        # 5. The API.
        authorize = Authorize(self, "Authorize", shared=shared)
        self.api = api = Api(self, "Api", shared=shared, authorize=authorize)

        bot = (
            [Bot(self, "Bot", shared=shared, options=stage.bot, api=api, queue=queues.bot)]
            if stage.bot and queues.bot
            else []
        )

        # 6. Alarms and a dashboard for operators.
        functions = [ingest, *invoke, *edit, record, sweep, dead_letters, webhooks, authorize, api, *bot]
        self.alarms = Alarms(self, "Alarms", shared=shared, functions=functions, api=api, topic_key=notifications.key)
        Dashboard(self, "Dashboard", shared=shared, functions=functions, api=api, alarms=self.alarms)

        # The stacks of the endpoints import these. All are exported in every mode: CloudFormation refuses to remove an
        # export while another stack imports it, which would block a change of mode.
        for exported in (
            storage.inbox.bucket_arn,
            storage.results.bucket_arn,
            storage.results.bucket_name,
            notifications.completed.topic_arn,
            notifications.failed.topic_arn,
            notifications.key.key_arn,
        ):
            self.export_value(exported)

        for name, value in {
            "InboxBucket": storage.inbox.bucket_name,
            "ResultsBucket": storage.results.bucket_name,
            "JobsTable": jobs.table.table_name,
            "RegistryTable": registry.table.table_name,
            "ApiUrl": api.url,
            **({"ApiDomain": api.domain.url} if api.domain else {}),
            "ApiId": api.rest.rest_api_id,
            "ApiStage": api.rest.deployment_stage.stage_name,
            "UsagePlanId": api.usage_plan.usage_plan_id,
            "EndpointName": shared.bulk.name,
            "EventBusName": bus.event_bus_name,
            "JobsQueueUrl": queues.jobs.queue_url,
            "ResultsQueueUrl": queues.results.queue_url,
            "DeadLettersQueueUrl": queues.dead.queue_url,
            **({"BundlesQueueUrl": queues.bundles.queue_url} if queues.bundles else {}),
            **({"BotUrl": bot[0].url, "BotParameter": stage.bot.parameter} if bot and stage.bot else {}),
            **({"EditsQueueUrl": queues.edits.queue_url} if queues.edits else {}),
        }.items():
            CfnOutput(self, f"Output{name}", value=value).override_logical_id(name)
