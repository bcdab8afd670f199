"""The order in which CloudFormation must create resources, since the services check or use the earlier one at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tests.infra.account.assembly import Assembly, Node, Resource, references

Pairs = Callable[[Assembly], Iterable[tuple[Resource, Resource]]]
"""The pairs (later, earlier) of an assembly."""


@dataclass(frozen=True, slots=True)
class Order:
    """reason: what fails in the wrong order. pairs: the resources it applies to."""

    reason: str
    pairs: Pairs


def violations(assembly: Assembly, orders: Iterable[Order]) -> list[str]:
    """The pairs that CloudFormation may create in the wrong order."""
    found, waits = [], {}
    for order in orders:
        for later, earlier in order.pairs(assembly):
            if later.node not in waits:
                waits[later.node] = assembly.waits_for(later.node)
            if earlier.node not in waits[later.node]:
                found.append(f"{later} does not wait for {earlier}: {order.reason}")
    return found


def _policies(assembly: Assembly, role: Node) -> Iterator[Resource]:
    """The policies of a role that are resources of their own. Inline policies are part of the role."""
    for one in assembly.of("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
        if one.stack == role[0] and role[1] in references(one.raw.get("Roles", [])):
            yield one


def _role(assembly: Assembly, resource: Resource, *names: str) -> Node | None:
    for name in names:
        for one in references(resource.raw.get(name)):
            if assembly.resources[resource.stack, one].type == "AWS::IAM::Role":
                return resource.stack, one
    return None


def policies_before_user(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for one in assembly.of("AWS::Lambda::Function", "AWS::SageMaker::Model"):
        if role := _role(assembly, one, "Role", "ExecutionRoleArn"):
            yield from ((one, policy) for policy in _policies(assembly, role))


def image_before_model(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for image in (one for one in assembly.resources.values() if one.type == "Custom::Image"):
        yield from ((model, image) for model in assembly.of("AWS::SageMaker::Model"))


def policies_before_build(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for image in (one for one in assembly.resources.values() if one.type == "Custom::Image"):
        users = assembly.of("AWS::CodeBuild::Project", "AWS::Lambda::Function")
        for one in (one for one in users if one.stack == image.stack):
            if role := _role(assembly, one, "ServiceRole", "Role"):
                yield from ((image, policy) for policy in _policies(assembly, role))


def queue_policy_before_notification(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for bucket in assembly.of("AWS::S3::Bucket"):
        targets = {*references(bucket.raw.get("NotificationConfiguration", {}))}
        for policy in assembly.of("AWS::SQS::QueuePolicy"):
            if policy.stack == bucket.stack and targets & {*references(policy.raw["Queues"])}:
                yield bucket, policy


def policies_before_event_source(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for mapping in assembly.of("AWS::Lambda::EventSourceMapping"):
        (name,) = references(mapping.raw["FunctionName"])
        if role := _role(assembly, assembly.resources[mapping.stack, name], "Role"):
            yield from ((mapping, policy) for policy in _policies(assembly, role))


def log_group_before_writer(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    """Of functions, builds and endpoints. The log group of an endpoint is found by its name."""
    groups = {one.properties.get("LogGroupName"): one for one in assembly.of("AWS::Logs::LogGroup")}
    for function in assembly.of("AWS::Lambda::Function"):
        if "LoggingConfig" in function.properties:
            yield function, groups[function.properties["LoggingConfig"]["LogGroup"]]
    for project in assembly.of("AWS::CodeBuild::Project"):
        yield project, groups[project.properties["LogsConfig"]["CloudWatchLogs"]["GroupName"]]
    for endpoint in assembly.of("AWS::SageMaker::Endpoint"):
        yield endpoint, groups[f"/aws/sagemaker/Endpoints/{endpoint.properties['EndpointName']}"]


def execution_log_before_stage(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for stage in assembly.of("AWS::ApiGateway::Stage"):
        name = f"API-Gateway-Execution-Logs_{stage.properties['RestApiId']}/{stage.properties['StageName']}"
        for group in assembly.of("AWS::Logs::LogGroup"):
            if group.properties.get("LogGroupName") == name:
                yield stage, group


def account_before_stage(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for stage in assembly.of("AWS::ApiGateway::Stage"):
        logs = any(one.get("LoggingLevel", "OFF") != "OFF" for one in stage.properties.get("MethodSettings", []))
        if logs:
            yield from ((stage, account) for account in assembly.of("AWS::ApiGateway::Account"))


def endpoint_before_scaling(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    endpoints = {one.properties["EndpointName"]: one for one in assembly.of("AWS::SageMaker::Endpoint")}
    for target in assembly.of("AWS::ApplicationAutoScaling::ScalableTarget"):
        if target.properties["ServiceNamespace"] != "sagemaker":
            continue
        match = re.match(r"endpoint/([^/]+)/", target.properties["ResourceId"])
        assert match
        yield target, endpoints[match[1]]


def rollback_alarm_before_endpoint(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    alarms = {assembly.name(*one.node): one for one in assembly.of("AWS::CloudWatch::Alarm")}
    for endpoint in assembly.of("AWS::SageMaker::Endpoint"):
        rollback = endpoint.properties.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {})
        yield from ((endpoint, alarms[one["AlarmName"]]) for one in rollback.get("Alarms", []))


def topic_policy_before_async_endpoint(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for config in assembly.of("AWS::SageMaker::EndpointConfig"):
        if "AsyncInferenceConfig" in config.raw:
            text = json.dumps(config.properties["AsyncInferenceConfig"])
            for topic in assembly.of("AWS::SNS::Topic"):
                if assembly.physical_id(*topic.node) in text:
                    yield config, topic


def stage_before_firewall(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    for association in assembly.of("AWS::WAFv2::WebACLAssociation"):
        yield from ((association, stage) for stage in assembly.of("AWS::ApiGateway::Stage"))


def policy_before_emptying(assembly: Assembly) -> Iterator[tuple[Resource, Resource]]:
    """A stack is deleted in the reverse order: the policy goes after the bucket was emptied."""
    for emptying in (one for one in assembly.resources.values() if one.type == "Custom::S3AutoDeleteObjects"):
        for policy in assembly.of("AWS::S3::BucketPolicy"):
            if policy.properties["Bucket"] == emptying.properties["BucketName"]:
                yield emptying, policy


ORDERS = (
    Order("SageMaker reads the manifest of the image when it creates the model", image_before_model),
    Order("the build starts at once and is denied", policies_before_build),
    Order("S3 validates that it may send to the queue", queue_policy_before_notification),
    Order("Lambda validates that the role may receive", policies_before_event_source),
    Order("the service validates the role, or the first call is denied", policies_before_user),
    Order("the writer creates the log group, without retention, and CloudFormation fails", log_group_before_writer),
    Order("API Gateway creates the log group, without retention", execution_log_before_stage),
    Order("API Gateway refuses a logging level without a role of the account", account_before_stage),
    Order("the variant must exist", endpoint_before_scaling),
    Order("SageMaker refuses an unknown alarm", rollback_alarm_before_endpoint),
    Order("AWS WAF refuses a stage that does not exist (aws-samples/serverless-patterns#2173)", stage_before_firewall),
    Order("the function may not empty a bucket without its policy", policy_before_emptying),
    Order("SageMaker refuses a topic that does not exist", topic_policy_before_async_endpoint),
)
