"""The application stack. `make up` deploys the same template into the local emulator."""

from __future__ import annotations

from aws_cdk import CfnOutput, DefaultStackSynthesizer, RemovalPolicy, Stack
from aws_cdk import aws_events as events
from aws_cdk import aws_kms as kms
from constructs import Construct

from infra.alarms import Alarms
from infra.api import Api
from infra.authorize import Authorize
from infra.bundle import lambda_code
from infra.dashboard import Dashboard
from infra.dead_letters import DeadLetters
from infra.endpoint import BulkEndpoint
from infra.ingest import Ingest
from infra.interactive import InteractiveEndpoint
from infra.jobs_table import JobsTable
from infra.queues import Queues
from infra.record import Record
from infra.registry import Registry
from infra.shared import SharedResources
from infra.stages import Stage
from infra.storage import Storage
from infra.sweep import Sweep
from infra.webhooks import Webhooks


class MaskdropStack(Stack):
    """All resources except the image and the budget.

    image_tag: tag of the image that the endpoints run. The stack names it and imports nothing from ImageStack.
    """

    def __init__(self, scope: Construct, *, stage: Stage, image_tag: str) -> None:
        super().__init__(
            scope,
            f"Maskdrop-{stage.name}",
            description="Maskdrop: background removal in your own account",
            synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        # 1. Buckets store the photos and notify the queues.
        queues = Queues(self, "Queues")
        storage = Storage(self, "Storage", stage=stage, intake=queues.intake)

        # 2. Tables store the jobs; the event bus publishes their events.
        jobs = JobsTable(self, "Jobs", stage=stage)
        registry = Registry(self, "Registry", stage=stage)
        bus = events.EventBus(self, "Bus", event_bus_name=f"maskdrop-{stage.name}")

        # 3. Endpoints process the images. CloudWatch cannot use the AWS managed key of SNS, hence this key.
        key = kms.Key(self, "TopicKey", enable_key_rotation=True, removal_policy=RemovalPolicy.DESTROY)
        bulk = BulkEndpoint(self, "Bulk", stage=stage, storage=storage, topic_key=key, image_tag=image_tag)
        interactive = None
        if stage.interactive != "off":
            interactive = InteractiveEndpoint(self, "Interactive", stage=stage, storage=storage, image_tag=image_tag)

        # 4. Functions pass references to images, never the images.
        shared = SharedResources(
            stage=stage,
            code=lambda_code(),
            queues=queues,
            storage=storage,
            jobs=jobs,
            registry=registry,
            bulk=bulk,
            interactive=interactive,
            bus=bus,
        )
        ingest = Ingest(self, "Ingest", shared=shared)
        record = Record(self, "Record", shared=shared)
        sweep = Sweep(self, "Sweep", shared=shared)
        dead_letters = DeadLetters(self, "DeadLetters", shared=shared)
        webhooks = Webhooks(self, "Webhooks", shared=shared)

        # 5. The API.
        authorize = Authorize(self, "Authorize", shared=shared)
        api = Api(self, "Api", shared=shared, authorize=authorize)

        # 6. Alarms and a dashboard for operators.
        functions = [ingest, record, sweep, dead_letters, webhooks, authorize, api]
        alarms = Alarms(self, "Alarms", shared=shared, functions=functions, api=api, topic_key=key)
        Dashboard(self, "Dashboard", shared=shared, functions=functions, api=api, alarms=alarms)

        for name, value in {
            "InboxBucket": storage.inbox.bucket_name,
            "ResultsBucket": storage.results.bucket_name,
            "JobsTable": jobs.table.table_name,
            "RegistryTable": registry.table.table_name,
            "ApiUrl": api.rest.url,
            "ApiId": api.rest.rest_api_id,
            "ApiStage": api.rest.deployment_stage.stage_name,
            "UsagePlanId": api.usage_plan.usage_plan_id,
            "EndpointName": bulk.name,
            "EventBusName": bus.event_bus_name,
            "IntakeQueueUrl": queues.intake.queue_url,
            "JobsQueueUrl": queues.jobs.queue_url,
            "ResultsQueueUrl": queues.results.queue_url,
        }.items():
            CfnOutput(self, f"Output{name}", value=value).override_logical_id(name)
