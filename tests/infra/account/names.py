"""Names that the templates fix, and where each must be unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from tests.infra.account import schemas
from tests.infra.account.assembly import Assembly, Resource

Scope = Literal["world", "account", "Region"]

NAMED: dict[str, tuple[str, Scope]] = {
    "AWS::ApiGateway::DomainName": ("DomainName", "Region"),
    "AWS::Budgets::Budget": ("Budget.BudgetName", "account"),
    "AWS::CloudFront::Function": ("Name", "account"),
    "AWS::CloudWatch::Alarm": ("AlarmName", "Region"),
    "AWS::CloudWatch::CompositeAlarm": ("AlarmName", "Region"),
    "AWS::CloudWatch::Dashboard": ("DashboardName", "account"),
    "AWS::CodeBuild::Project": ("Name", "Region"),
    "AWS::DynamoDB::Table": ("TableName", "Region"),
    "AWS::ECR::Repository": ("RepositoryName", "Region"),
    "AWS::Events::EventBus": ("Name", "Region"),
    "AWS::Events::Rule": ("Name", "Region"),
    "AWS::IAM::ManagedPolicy": ("ManagedPolicyName", "account"),
    "AWS::IAM::Role": ("RoleName", "account"),
    "AWS::KMS::Alias": ("AliasName", "Region"),
    "AWS::Lambda::Function": ("FunctionName", "Region"),
    "AWS::Logs::LogGroup": ("LogGroupName", "Region"),
    "AWS::S3::Bucket": ("BucketName", "world"),
    "AWS::SNS::Topic": ("TopicName", "Region"),
    "AWS::SQS::Queue": ("QueueName", "Region"),
    "AWS::SageMaker::Endpoint": ("EndpointName", "Region"),
    "AWS::SageMaker::EndpointConfig": ("EndpointConfigName", "Region"),
    "AWS::SageMaker::Model": ("ModelName", "Region"),
    "AWS::ApplicationAutoScaling::ScalableTarget": ("ResourceId", "Region"),
    "AWS::WAFv2::WebACL": ("Name", "Region"),
}
"""Type -> path of the property that is its name, and where the name must be unique. Dashboards and budgets belong to
the account (CloudWatch user guide, "dashboards are global"; Budgets: believed)."""

NO_NAME = {
    "AWS::ApiGateway::RestApi": "its ID is generated; two APIs may have one name",
    "AWS::ApiGateway::Stage": "unique in its API",
    "AWS::ApiGateway::Authorizer": "unique in its API",
    "AWS::ApiGateway::UsagePlan": "its ID is generated",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "unique in its scalable target",
    "AWS::IAM::Policy": "unique in its role",
    "AWS::EC2::SecurityGroup": "unique in its VPC",
    "AWS::ECS::TaskDefinition": "a family has revisions",
    "AWS::Lambda::Alias": "unique in its function",
    "AWS::Route53::RecordSet": "unique in its zone",
    "AWS::Logs::MetricFilter": "unique in its log group",
}
"""Types with a name that needs to be unique in another resource only."""


def physical(resource: Resource) -> tuple[str, str] | None:
    """(type, name) of a resource whose template fixes its name; None otherwise."""
    if resource.type not in NAMED:
        return None
    found = [*schemas.values(resource.properties, NAMED[resource.type][0])]
    return (resource.type, found[0]) if found else None


def collisions(assemblies: Iterable[Assembly], scope: Scope) -> list[str]:
    """Names that two deployments fix, among the types whose names must be unique in `scope` or beyond."""
    wider: dict[Scope, tuple[Scope, ...]] = {
        "Region": ("Region", "account", "world"),
        "account": ("account", "world"),
        "world": ("world",),
    }
    names = Counter[tuple[str, str]]()
    for assembly in assemblies:
        names.update({("stack", name) for name in assembly.templates} if scope == "Region" else set())
        names.update(
            {
                name
                for one in assembly.resources.values()
                if (name := physical(one)) and NAMED[one.type][1] in wider[scope]
            }
        )
    return [f"{kind} {name}" for (kind, name), count in sorted(names.items()) if count > 1]


def unlisted(assembly: Assembly) -> list[str]:
    """Types in neither table whose name the template fixes."""
    return sorted(
        {
            f"{one.type} {name}"
            for one in assembly.resources.values()
            for name in one.properties
            if name in (f"{one.type.rpartition('::')[2]}Name", "Name") and one.type not in {**NAMED, **NO_NAME}
        }
    )
