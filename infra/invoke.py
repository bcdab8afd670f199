"""`lambdas/invoke.py`: sends the bundles queued in `bundles` to the serverless endpoint `bulk`."""

from __future__ import annotations

from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.function import Function
from infra.queues import INVOKE_S
from infra.shared import SharedResources
from maskdrop.flow import BUNDLES_PREFIX, RESPONSES_PREFIX


class Invoke(Function):
    """One bundle per invocation: its invocations run as long as those of the endpoint, and as many at a time."""

    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources, bundles: sqs.Queue) -> None:
        super().__init__(scope, construct_id, name="invoke", shared=shared, memory_mb=512, timeout_s=INVOKE_S)
        self.function.add_event_source(
            sources.SqsEventSource(
                bundles, batch_size=1, max_concurrency=shared.stage.bulk_at_once, report_batch_item_failures=True
            )
        )
        results = shared.storage.results
        self.allow("sagemaker:InvokeEndpoint", on=shared.bulk.arn)
        self.allow_objects("s3:GetObject", on=results.arn_for_objects(f"{BUNDLES_PREFIX}*"))
        self.allow_objects("s3:PutObject", on=results.arn_for_objects(f"{RESPONSES_PREFIX}*"))
        self.allow("sqs:SendMessage", on=bundles.queue_arn)
        self.allow("sqs:SendMessage", on=shared.queues.results.queue_arn)
