"""The application: what the cloud runs and, unchanged, what the laptop runs."""

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
from infra.parts import Parts
from infra.queues import Queues
from infra.record import Record
from infra.registry import Registry
from infra.stages import Stage
from infra.storage import Storage
from infra.sweep import Sweep
from infra.webhooks import Webhooks


class MaskdropStack(Stack):
    """image_tag: which build of the container the endpoint runs. The image is named, not imported, so that this stack
    stands by itself."""

    def __init__(self, scope: Construct, *, stage: Stage, image_tag: str) -> None:
        super().__init__(
            scope,
            f"Maskdrop-{stage.name}",
            description="Maskdrop: background removal in your own account",
            synthesizer=DefaultStackSynthesizer(generate_bootstrap_version_rule=False),
        )
        # 1. Photos are kept and announced.
        queues = Queues(self, "Queues")
        storage = Storage(self, "Storage", stage=stage, intake=queues.intake)

        # 2. Each has a job, and the world hears when it ends.
        jobs = JobsTable(self, "Jobs", stage=stage)
        registry = Registry(self, "Registry", stage=stage)
        bus = events.EventBus(self, "Bus", event_bus_name=f"maskdrop-{stage.name}")

        # 3. The endpoints do the work. (CloudWatch may not use AWS's own key for topics, hence one of ours.)
        key = kms.Key(self, "TopicKey", enable_key_rotation=True, removal_policy=RemovalPolicy.DESTROY)
        bulk = BulkEndpoint(self, "Bulk", stage=stage, storage=storage, topic_key=key, image_tag=image_tag)
        interactive = None
        if stage.interactive != "off":
            interactive = InteractiveEndpoint(self, "Interactive", stage=stage, storage=storage, image_tag=image_tag)

        # 4. Functions pass on references to it.
        parts = Parts(
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
        ingest = Ingest(self, "Ingest", parts=parts)
        record = Record(self, "Record", parts=parts)
        sweep = Sweep(self, "Sweep", parts=parts)
        dead_letters = DeadLetters(self, "DeadLetters", parts=parts)
        webhooks = Webhooks(self, "Webhooks", parts=parts)

        # 5. The API tells who may know what became of them.
        authorize = Authorize(self, "Authorize", parts=parts)
        api = Api(self, "Api", parts=parts, authorize=authorize)

        # 6. A person watches.
        functions = [ingest, record, sweep, dead_letters, webhooks, authorize, api]
        alarms = Alarms(self, "Alarms", parts=parts, functions=functions, api=api, topic_key=key)
        Dashboard(self, "Dashboard", parts=parts, functions=functions, api=api, alarms=alarms)

        for name, value in {
            "InboxBucket": storage.inbox.bucket_name,
            "ResultsBucket": storage.results.bucket_name,
            "JobsTable": jobs.table.table_name,
            "RegistryTable": registry.table.table_name,
            "ApiUrl": api.rest.url,
            "ApiId": api.rest.rest_api_id,
            "ApiStage": api.rest.deployment_stage.stage_name,
            "UsagePlanId": api.plan.usage_plan_id,
            "EndpointName": bulk.name,
            "EventBusName": bus.event_bus_name,
            "IntakeQueueUrl": queues.intake.queue_url,
            "JobsQueueUrl": queues.jobs.queue_url,
            "ResultsQueueUrl": queues.results.queue_url,
        }.items():
            CfnOutput(self, f"Output{name}", value=value).override_logical_id(name)
