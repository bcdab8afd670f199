"""`lambdas/edit.py`: generates the images of the jobs queued in `edits`."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda_event_sources as sources
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.function import Function
from infra.queues import EDIT_S
from infra.shared import SharedResources
from infra.stages import EDIT_EXECUTIONS
from maskdrop.edit import EDITORS, EDITS_PREFIX


class Edit(Function):
    """One job per invocation, since a call of the editor takes up to a minute."""

    def __init__(self, scope: Construct, construct_id: str, *, shared: SharedResources, edits: sqs.Queue) -> None:
        # 1,769 MB: one vCPU, which inverts a mask of 9.4 MP in about 2 s.
        super().__init__(scope, construct_id, name="edit", shared=shared, memory_mb=1769, timeout_s=EDIT_S, in_vpc=True)
        self.function.add_event_source(
            sources.SqsEventSource(
                edits, batch_size=1, max_concurrency=EDIT_EXECUTIONS, report_batch_item_failures=True
            )
        )
        results = shared.storage.results
        self.allow("dynamodb:GetItem", "dynamodb:UpdateItem", on=shared.jobs.table.table_arn)
        self.allow_objects("s3:GetObject", "s3:PutObject", on=results.arn_for_objects(f"{EDITS_PREFIX}*"))
        # Without it, S3 returns 403 for a missing object.
        self.allow("s3:ListBucket", on=results.bucket_arn)
        for queue in (edits, shared.queues.jobs):
            self.allow("sqs:SendMessage", on=queue.queue_arn)
        self.allow("events:PutEvents", on=shared.bus.event_bus_arn)
        items = ("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")
        shared.registry.allow(self.role, *items, kinds=["edit", "usage", "circuit"])
        shared.registry.allow(self.role, "dynamodb:GetItem", kinds=["cap"])
        if arns := _model_arns(shared):
            self.role.add_to_policy(iam.PolicyStatement(actions=["bedrock:InvokeModel"], resources=arns))


def _model_arns(shared: SharedResources) -> list[str]:
    """The ARNs that a call of the editor's model needs: that of the model and, for an inference profile, that of the
    profile and of the model in each Region to which it may route the request. Empty for an editor without a model."""
    editor = EDITORS[shared.stage.editor]
    if not editor.model:
        return []
    bedrock = f"arn:{Aws.PARTITION}:bedrock"
    if not editor.profile:
        return [f"{bedrock}:{Aws.REGION}::foundation-model/{editor.model}"]
    models = [f"{bedrock}:{region}::foundation-model/{editor.model}" for region in editor.regions]
    return [f"{bedrock}:{Aws.REGION}:{Aws.ACCOUNT_ID}:inference-profile/{editor.profile}", *models]
