"""`lambdas/ingest.py`: claims the photos and jobs queued in `jobs`, bundles them and submits the bundles."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from infra.function import Function
from infra.queues import INGEST_S
from infra.shared import SharedResources
from maskdrop.flow import BUNDLES_PREFIX
from maskdrop.malware import SCANNED

BATCH = 256
"""Messages per invocation: four full bundles."""


class Ingest(Function):
    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources) -> None:
        # 1,024 MB: more than half a vCPU, for the TLS of eight threads that write to the table.
        super().__init__(
            scope, construct_id, name="ingest", shared=shared, memory_mb=1024, timeout_s=INGEST_S, in_vpc=True
        )
        self.function.add_event_source(
            sources.SqsEventSource(
                shared.queues.jobs,
                batch_size=BATCH,
                max_batching_window=Duration.seconds(shared.stage.batching_window_s),
                max_concurrency=shared.stage.source_concurrency,
                report_batch_item_failures=True,
            )
        )
        self.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=shared.jobs.table.table_arn)
        self.allow_objects("s3:PutObject", on=shared.storage.results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        if bundles := shared.queues.bundles:
            self.allow("sqs:SendMessage", on=bundles.queue_arn)
        else:
            self.allow("sagemaker:InvokeEndpointAsync", on=shared.bulk.arn)
        self.allow("events:PutEvents", on=shared.bus.event_bus_arn)
        for queue in shared.stage_queues:
            self.allow("sqs:SendMessage", on=queue)
        if shared.stage.malware_scan:
            for prefix in SCANNED:
                objects = shared.storage.inbox.arn_for_objects(f"{prefix}*")
                self.allow_objects("s3:GetObjectTagging", on=objects)
            # Without it, S3 returns 403 for a missing object.
            self.allow("s3:ListBucket", on=shared.storage.inbox.bucket_arn)
        shared.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
        shared.registry.allow(
            self.role,
            *("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem", "dynamodb:Query"),
            kinds=["valve"],
        )
