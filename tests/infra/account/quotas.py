"""Quotas of a new account and fixed limits of the services, and what the stages of an account use of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from infra.stages import TAGS_MAX
from tests.infra.account.assembly import Assembly, Resource

Use = Callable[[Sequence[Assembly]], float]


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota of one account and Region.

    limit: value in a new account. source: where the value comes from. use: what the stages use.
    """

    name: str
    limit: float
    source: str
    use: Use


def exceeded(stages: Sequence[Assembly], quotas: Sequence[Quota]) -> list[str]:
    """The quotas that the stages of one account exceed."""
    return [
        f"{one.name}: {used:g} of {one.limit:g} ({one.source})"
        for one in quotas
        if (used := one.use(stages)) > one.limit
    ]


def _each(stages: Sequence[Assembly], *types: str) -> Iterator[Resource]:
    for stage in stages:
        yield from stage.of(*types)


def _variants(stages: Sequence[Assembly]) -> Iterator[dict]:
    for one in _each(stages, "AWS::SageMaker::EndpointConfig"):
        yield from one.properties["ProductionVariants"]


def is_gpu(instance_type: str) -> bool:
    """Whether a SageMaker instance type has a GPU: families g and p."""
    return instance_type.removeprefix("ml.")[0] in "gp"


def gpu_instances(stages: Sequence[Assembly]) -> float:
    found = (one for one in _variants(stages) if is_gpu(one.get("InstanceType", "ml.m")))
    return sum(one["InitialInstanceCount"] for one in found)


def cpu_instances(stages: Sequence[Assembly]) -> float:
    found = (one for one in _variants(stages) if not is_gpu(one.get("InstanceType", "ml.g")))
    return sum(one["InitialInstanceCount"] for one in found)


def serverless_memory(stages: Sequence[Assembly]) -> float:
    return max(
        (one["ServerlessConfig"]["MemorySizeInMB"] for one in _variants(stages) if "ServerlessConfig" in one), default=0
    )


def serverless_concurrency(stages: Sequence[Assembly]) -> float:
    return sum(one["ServerlessConfig"]["MaxConcurrency"] for one in _variants(stages) if "ServerlessConfig" in one)


def reserved_concurrency(stages: Sequence[Assembly]) -> float:
    return sum(one.properties.get("ReservedConcurrentExecutions", 0) for one in _each(stages, "AWS::Lambda::Function"))


def event_source_concurrency(stages: Sequence[Assembly]) -> float:
    """Concurrent executions that queues can start. Dead-letter queues are empty unless a component fails."""
    found = 0.0
    for stage in stages:
        queues = {one.logical_id: one for one in stage.of("AWS::SQS::Queue")}
        for one in stage.of("AWS::Lambda::EventSourceMapping"):
            (queue,) = [name for name in queues if name in json.dumps(one.raw["EventSourceArn"])]
            if "RedrivePolicy" in queues[queue].raw:
                found += one.properties.get("ScalingConfig", {}).get("MaximumConcurrency", 1000)
    return found


def builds(stages: Sequence[Assembly]) -> float:
    """Builds that one deployment starts at the same time."""
    return max(sum(one.type == "Custom::Image" for one in stage.resources.values()) for stage in stages)


def networks(stages: Sequence[Assembly]) -> float:
    return len([*_each(stages, "AWS::EC2::VPC")])


REPORTED = "reported by users of new accounts"

NEW_ACCOUNT = (
    Quota("SageMaker: GPU instances for endpoint usage", 0, REPORTED, gpu_instances),
    Quota("SageMaker: CPU instances for endpoint usage", 0, "assumed: some types have 0", cpu_instances),
    Quota("SageMaker: memory of a serverless endpoint in MB", 3072, REPORTED, serverless_memory),
    Quota("SageMaker: concurrency of all serverless endpoints", 10, f"L-96300102, {REPORTED}", serverless_concurrency),
    Quota(
        "Lambda: reserved executions, of which 10 must stay unreserved of 10",
        0,
        "aws-samples/alarm-context-tool#2, DataDog/datadog-serverless-functions#621",
        reserved_concurrency,
    ),
    Quota("Lambda: executions that queues start at the same time", 10, REPORTED, event_source_concurrency),
    Quota("CodeBuild: concurrent builds", 1, "CodeBuild user guide, quotas: new accounts may have less", builds),
    Quota(
        "EC2: VPCs of a Region", 5, "VPC user guide, quotas; one exists by default", lambda stages: 1 + networks(stages)
    ),
)


def _size(value: object) -> int:
    """Characters without white space, as IAM counts a policy."""
    return len("".join(json.dumps(value, separators=(",", ":")).split()))


def policy_characters(stages: Sequence[Assembly]) -> float:
    """The largest sum of the inline policies of a role."""
    sizes: dict[str, int] = {}
    for stage in stages:
        for role in stage.of("AWS::IAM::Role"):
            name = stage.physical_id(*role.node)
            sizes[name] = sizes.get(name, 0) + sum(
                _size(one["PolicyDocument"]) for one in role.properties.get("Policies", [])
            )
        for policy in stage.of("AWS::IAM::Policy"):
            for name in policy.properties.get("Roles", []):
                sizes[name] = sizes.get(name, 0) + _size(policy.properties["PolicyDocument"])
    return max(sizes.values())


def environment_bytes(stages: Sequence[Assembly]) -> float:
    functions = (one.properties.get("Environment", {}) for one in _each(stages, "AWS::Lambda::Function"))
    return max(len(json.dumps(one.get("Variables", {}), separators=(",", ":")).encode()) for one in functions)


def template_bytes(stages: Sequence[Assembly]) -> float:
    return max(len(json.dumps(template).encode()) for stage in stages for template in stage.templates.values())


def resources(stages: Sequence[Assembly]) -> float:
    return max(len(template["Resources"]) for stage in stages for template in stage.templates.values())


def outputs(stages: Sequence[Assembly]) -> float:
    return max(len(template.get("Outputs", {})) for stage in stages for template in stage.templates.values())


def metrics_of_an_alarm(stages: Sequence[Assembly]) -> float:
    alarms = _each(stages, "AWS::CloudWatch::Alarm")
    return max(sum("MetricStat" in one for one in alarm.properties.get("Metrics", [])) for alarm in alarms)


def inline_code(stages: Sequence[Assembly]) -> float:
    return max(len(one.properties["Code"].get("ZipFile", "")) for one in _each(stages, "AWS::Lambda::Function"))


def targets_of_a_rule(stages: Sequence[Assembly]) -> float:
    return max(len(one.properties.get("Targets", [])) for one in _each(stages, "AWS::Events::Rule"))


def tags_of_a_resource(stages: Sequence[Assembly]) -> float:
    """The most tags of a resource, if each stage had as many tags of its own as a stage may have."""
    used = []
    for stage in stages:
        own = {key for one in stage.of("AWS::Lambda::Function") for key in _tags(one)}
        used += [len(_tags(one) - own) + 1 + TAGS_MAX for one in stage.resources.values() if _tags(one)]
    return max(used)


def _tags(resource: Resource) -> set[str]:
    tags = resource.properties.get("Tags", [])
    return {*tags} if isinstance(tags, dict) else {one["Key"] for one in tags if isinstance(one, dict)}


LIMITS = (
    Quota("IAM: characters of the inline policies of a role", 10_240, "IAM user guide, quotas", policy_characters),
    Quota("Lambda: bytes of environment variables", 4_096, "Lambda developer guide, quotas", environment_bytes),
    Quota("Lambda: characters of inline code", 4_096, "CloudFormation reference, Code.ZipFile", inline_code),
    Quota("CloudFormation: bytes of a template in S3", 1_048_576, "CloudFormation user guide, quotas", template_bytes),
    Quota("CloudFormation: resources of a template", 500, "CloudFormation user guide, quotas", resources),
    Quota("CloudFormation: outputs of a template", 200, "CloudFormation user guide, quotas", outputs),
    Quota("CloudWatch: metrics of an alarm on metric math", 10, "CloudWatch user guide, alarms", metrics_of_an_alarm),
    Quota("AWS: tags of a resource", 50, "S3, IAM and EC2 user guides: 50 tags for each", tags_of_a_resource),
    Quota("EventBridge: targets of a rule", 5, "EventBridge user guide, quotas", targets_of_a_rule),
)
"""Limits that no request raises."""
