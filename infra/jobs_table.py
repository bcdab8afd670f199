"""DynamoDB table of jobs: one item per job."""

from __future__ import annotations

from aws_cdk import aws_dynamodb as dynamodb
from constructs import Construct

from infra.retention import data_policy
from infra.stages import Stage

BY_STATE, BY_OWNER = "by_state", "by_owner"


class JobsTable(Construct):
    """Key: `id`. Indexes: `state` and `owner`, sorted by `recency` (last change). TTL: `expires_at`."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=_text("id"),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.DEFAULT,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            removal_policy=data_policy(stage),
            time_to_live_attribute="expires_at",
        )
        for name, key in ((BY_STATE, "state"), (BY_OWNER, "owner")):
            self.table.add_global_secondary_index(index_name=name, partition_key=_text(key), sort_key=_text("recency"))

    def index_arn(self, index: str) -> str:
        return f"{self.table.table_arn}/index/{index}"


def _text(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)
