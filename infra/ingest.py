"""`lambdas/ingest.py`: what waits in intake and jobs is claimed, bundled and submitted."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_lambda_event_sources as sources
from constructs import Construct

from infra.function import Function
from infra.parts import Parts
from infra.queues import INGEST_S
from maskdrop.flow import MANIFESTS_PREFIX

BATCH = 256
"""Messages a call: four full bundles."""

AT_ONCE = 10
"""Calls at once for each queue, which bounds what the table and the endpoint must take: 2,560 images."""


class Ingest(Function):
    def __init__(self, scope: Construct, construct_id: str, *, parts: Parts) -> None:
        # 1,024 MB: more than half a processor, for the TLS of eight threads that write to the table.
        super().__init__(scope, construct_id, name="ingest", parts=parts, memory_mb=1024, timeout_s=INGEST_S)
        for queue in (parts.queues.intake, parts.queues.jobs):
            self.function.add_event_source(
                sources.SqsEventSource(
                    queue,
                    batch_size=BATCH,
                    max_batching_window=Duration.seconds(parts.stage.batching_window_s),
                    max_concurrency=AT_ONCE,
                    report_batch_item_failures=True,
                )
            )
        self.allow("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", on=parts.jobs.table.table_arn)
        self.allow_objects("s3:PutObject", on=parts.storage.results.arn_for_objects(f"{MANIFESTS_PREFIX}*"))
        self.allow("sagemaker:InvokeEndpointAsync", on=parts.bulk.arn)
        self.allow("events:PutEvents", on=parts.bus.event_bus_arn)
        parts.registry.allow(self.role, "dynamodb:Query", kinds=["preset"])
