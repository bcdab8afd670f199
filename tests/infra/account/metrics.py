"""The dimensions with which services publish the metrics that alarms, scaling policies and the dashboard read.

CloudWatch accepts any combination: with another one, an alarm has no data, and a graph is empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.infra.account.assembly import Assembly

ENDPOINT, VARIANT = ("EndpointName",), ("EndpointName", "VariantName")

OWN = "Maskdrop"
"""Namespace of the metrics of the functions (lambdas/observe.py)."""

DIMENSIONS: dict[tuple[str, str], tuple[tuple[str, ...], ...]] = {
    # SageMaker developer guide, "Alarms and logs for tracking metrics from asynchronous endpoints"
    ("AWS/SageMaker", "ApproximateBacklogSize"): (ENDPOINT,),
    ("AWS/SageMaker", "ApproximateBacklogSizePerInstance"): (ENDPOINT,),
    ("AWS/SageMaker", "HasBacklogWithoutCapacity"): (ENDPOINT,),
    ("AWS/SageMaker", "InvocationFailures"): (VARIANT,),
    # SageMaker developer guide, "Amazon SageMaker AI metrics in Amazon CloudWatch"
    ("AWS/SageMaker", "Invocation5XXErrors"): (VARIANT,),
    ("AWS/SageMaker", "Invocations"): (VARIANT,),
    ("AWS/SageMaker", "ModelLatency"): (VARIANT,),
    ("AWS/SageMaker", "OverheadLatency"): (VARIANT,),
    ("AWS/SageMaker", "ServerlessConcurrentExecutionsUtilization"): (VARIANT,),
    # Developer guides of the services: monitoring with CloudWatch
    ("AWS/ApiGateway", "4XXError"): (("ApiName",), ("ApiName", "Stage")),
    ("AWS/ApiGateway", "5XXError"): (("ApiName",), ("ApiName", "Stage")),
    ("AWS/ApiGateway", "Count"): (("ApiName",), ("ApiName", "Stage")),
    # Elastic Load Balancing user guide, "CloudWatch metrics for your Application Load Balancer"
    ("AWS/ApplicationELB", "HTTPCode_ELB_5XX_Count"): (("LoadBalancer",), ("AvailabilityZone", "LoadBalancer")),
    ("AWS/ApplicationELB", "HTTPCode_Target_5XX_Count"): (("LoadBalancer",), ("LoadBalancer", "TargetGroup")),
    ("AWS/ApplicationELB", "HealthyHostCount"): (("LoadBalancer", "TargetGroup"),),
    ("AWS/DynamoDB", "ReadThrottleEvents"): (("TableName",), ("GlobalSecondaryIndexName", "TableName")),
    ("AWS/DynamoDB", "WriteThrottleEvents"): (("TableName",), ("GlobalSecondaryIndexName", "TableName")),
    ("AWS/Lambda", "Duration"): (("FunctionName",),),
    ("AWS/Lambda", "Errors"): (("FunctionName",),),
    ("AWS/Lambda", "Invocations"): (("FunctionName",),),
    ("AWS/Lambda", "Throttles"): (("FunctionName",),),
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): (("QueueName",),),
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): (("QueueName",),),
}
"""(namespace, metric) -> the combinations of dimensions, sorted."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric that a resource reads."""

    resource: str
    namespace: str
    metric: str
    dimensions: tuple[str, ...]


def unpublished(assembly: Assembly) -> list[str]:
    """Readings of metrics that no service publishes with these dimensions."""
    return [
        f"{one.resource} reads {one.namespace} {one.metric} by {', '.join(one.dimensions)}"
        for one in readings(assembly)
        if one.namespace != OWN and one.dimensions not in DIMENSIONS.get((one.namespace, one.metric), ())
    ]


def readings(assembly: Assembly) -> Iterator[Reading]:
    """The metrics of alarms, of scaling policies and of dashboards."""
    for alarm in assembly.of("AWS::CloudWatch::Alarm"):
        stats = [one["MetricStat"]["Metric"] for one in alarm.properties.get("Metrics", []) if "MetricStat" in one]
        for one in stats or [alarm.properties]:
            yield _reading(str(alarm), one)
    for policy in assembly.of("AWS::ApplicationAutoScaling::ScalingPolicy"):
        tracking = policy.properties.get("TargetTrackingScalingPolicyConfiguration", {})
        if "CustomizedMetricSpecification" in tracking:
            yield _reading(str(policy), tracking["CustomizedMetricSpecification"])
    for board in assembly.of("AWS::CloudWatch::Dashboard"):
        for widget in json.loads(board.properties["DashboardBody"])["widgets"]:
            for row in widget["properties"].get("metrics", []):
                texts = [one for one in row if isinstance(one, str)]
                if texts:  # otherwise an expression
                    yield Reading(str(board), texts[0], texts[1], tuple(sorted(texts[2::2])))


def _reading(resource: str, metric: dict[str, Any]) -> Reading:
    names = sorted(one["Name"] for one in metric.get("Dimensions", []))
    return Reading(resource, metric["Namespace"], metric["MetricName"], tuple(names))
