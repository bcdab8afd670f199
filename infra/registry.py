"""The registry table: presets, API keys, rate-limit windows, idempotency records and usage."""

from __future__ import annotations

from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from constructs import Construct

from infra.retention import data_policy
from infra.stages import Stage
from maskdrop.services import Kind


class Registry(Construct):
    """A DynamoDB table with partition key `kind` and sort key `name`. Items expire at `expires_at` (TTL)."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        self.table = dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name="kind", type=dynamodb.AttributeType.STRING),
            sort_key=dynamodb.Attribute(name="name", type=dynamodb.AttributeType.STRING),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            encryption=dynamodb.TableEncryption.DEFAULT,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=True
            ),
            removal_policy=data_policy(stage),
            time_to_live_attribute="expires_at",
        )

    def allow(self, role: iam.Role, *actions: str, kinds: list[Kind]) -> None:
        """Allows `actions` on items of these kinds only: a function that counts requests cannot read keys."""
        role.add_to_policy(
            iam.PolicyStatement(
                actions=list(actions),
                resources=[self.table.table_arn],
                # Without Null, a request that names no partition key (a scan) would meet the condition.
                conditions={
                    "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": kinds},
                    "Null": {"dynamodb:LeadingKeys": "false"},
                },
            )
        )
