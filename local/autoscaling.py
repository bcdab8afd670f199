"""The number of instances of an endpoint, computed as Application Auto Scaling and CloudWatch compute it.

Reads the scalable targets, scaling policies and alarms from a synthesized template. It has no clock and calls nothing:
its user records samples of metrics and evaluates the policies at times that it chooses, simulated or real. The
SageMaker emulator (local/sagemaker.py) and `maskdrop plan` use it.

    target = targets(template)["maskdrop-prod-bulk-g6-xlarge"]
    scaling = Autoscaling(target)
    for now_s in range(0, 86_400, 60):
        scaling.record(now_s, published(backlog, ready))
        desired = scaling.desired(now_s, desired, changing=desired != ready)

Rules, from the user guides of Application Auto Scaling and Amazon CloudWatch:

- Target tracking scales out when the metric exceeds the target for 3 periods, and in when it is below 90 % of the
  target for 15 minutes. The new number is instances * metric / target, rounded up.
- Step scaling applies the step that contains the distance between the metric and the threshold of its alarm. An alarm
  invokes the policy once a minute while it lasts.
- A cooldown begins when the change is complete, that is when the instances are in service. During that of a scale-out,
  the instances that it added count towards the next one: only a larger one adds instances. A scale-in waits for the
  cooldown of the previous one; a scale-out ends that cooldown.
- The policy with the most instances scales out. Instances are removed only if every target tracking policy agrees;
  step policies that remove instances are not supported, because no stage has one.
- SageMaker rejects a change of an endpoint that is updating, that is while instances start or stop.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["OK", "ALARM", "INSUFFICIENT_DATA"]
Missing = Literal["breaching", "notBreaching", "ignore", "missing"]

TRACKING_PERIODS_OUT = 3
"""Periods above the target before target tracking scales out."""

TRACKING_IN_S = 900
"""Seconds below the target before target tracking scales in: 15 periods of 60 s, or 90 of 10 s."""

TRACKING_IN_RATIO = 0.9
"""Ratio of the target below which target tracking scales in."""

TRACKING_COOLDOWN_S = 300
"""Default of both cooldowns of a policy for SageMaker, in seconds."""

PREDEFINED = {
    "SageMakerVariantInvocationsPerInstance": ("InvocationsPerInstance", "Sum", 60),
    "SageMakerVariantConcurrentRequestsPerModelHighResolution": ("ConcurrentRequestsPerModel", "Average", 10),
}
"""Predefined metric type -> metric, statistic, period in seconds."""

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": operator.ge,
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}

STATISTICS: dict[str, Callable[[Sequence[float]], float]] = {
    "Average": lambda values: sum(values) / len(values),
    "Sum": sum,
    "Minimum": min,
    "Maximum": max,
    "SampleCount": len,
}


def published(backlog: int, instances: int) -> dict[str, float]:
    """Returns the metrics that SageMaker publishes every minute for an asynchronous endpoint.

    backlog: requests that are queued or processed. instances: those that process requests.
    ApproximateBacklogSizePerInstance is undefined without instances, and then not published.
    """
    metrics = {
        "ApproximateBacklogSize": float(backlog),
        "HasBacklogWithoutCapacity": float(backlog > 0 and instances == 0),
    }
    return {**metrics, "ApproximateBacklogSizePerInstance": backlog / instances} if instances else metrics


class Samples:
    """Samples of metrics, by metric name."""

    def __init__(self, keep_s: float) -> None:
        """keep_s: age at which samples are deleted, in seconds."""
        self._keep_s = keep_s
        self._values: dict[str, deque[tuple[float, float]]] = {}

    def record(self, metric: str, at_s: float, value: float) -> None:
        """at_s: time of the sample in seconds, not before the previous one of this metric."""
        values = self._values.setdefault(metric, deque())
        values.append((at_s, value))
        while values[0][0] < at_s - self._keep_s:
            values.popleft()

    def datapoints(self, metric: str, statistic: str, period_s: int, count: int, now_s: float) -> list[float | None]:
        """Returns the statistic of the newest `count` complete periods, oldest first; None for one without samples.

        Periods begin at multiples of `period_s`, as in CloudWatch.
        """
        end = math.floor(now_s / period_s)
        groups: dict[int, list[float]] = {}
        for at_s, value in reversed(self._values.get(metric, ())):
            index = math.floor(at_s / period_s)
            if index < end - count:
                break
            groups.setdefault(index, []).append(value)
        return [
            float(STATISTICS[statistic](groups[index])) if index in groups else None
            for index in range(end - count, end)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """A CloudWatch alarm on one metric.

    datapoints: number of the newest `periods` that must breach the threshold.
    """

    metric: str
    statistic: str
    period_s: int
    periods: int
    datapoints: int
    threshold: float
    comparison: str
    missing: Missing = "missing"

    @classmethod
    def from_properties(cls, properties: Mapping[str, Any]) -> Alarm:
        """Reads the properties of an AWS::CloudWatch::Alarm on one metric."""
        periods = int(properties["EvaluationPeriods"])
        return cls(
            metric=properties["MetricName"],
            statistic=properties["Statistic"],
            period_s=int(properties["Period"]),
            periods=periods,
            datapoints=int(properties.get("DatapointsToAlarm", periods)),
            threshold=float(properties["Threshold"]),
            comparison=properties["ComparisonOperator"],
            missing=properties.get("TreatMissingData", "missing"),
        )

    def state(self, samples: Samples, now_s: float, before: State = "INSUFFICIENT_DATA") -> State:
        """Returns the state at a time. before: the state until then, which lasts when all data is missing and the alarm
        ignores it."""
        values = samples.datapoints(self.metric, self.statistic, self.period_s, self.periods, now_s)
        present = [value for value in values if value is not None]
        breaching = sum(COMPARISONS[self.comparison](value, self.threshold) for value in present)
        if self.missing == "breaching":
            breaching += len(values) - len(present)
        if breaching >= self.datapoints:
            return "ALARM"
        if present or self.missing in ("breaching", "notBreaching"):
            return "OK"
        return before if self.missing == "ignore" else "INSUFFICIENT_DATA"

    @property
    def range_s(self) -> int:
        """Seconds of samples that the alarm evaluates."""
        return self.period_s * self.periods


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetTracking:
    """A policy that keeps a metric per instance at a target.

    out_cooldown_s, in_cooldown_s: cooldown of a scale-out and of a scale-in, in seconds.
    scale_in: whether the policy removes instances.
    """

    name: str
    metric: str
    statistic: str
    period_s: int
    target: float
    out_cooldown_s: float
    in_cooldown_s: float
    scale_in: bool = True

    @classmethod
    def from_properties(cls, name: str, properties: Mapping[str, Any]) -> TargetTracking:
        """Reads a TargetTrackingScalingPolicyConfiguration."""
        if custom := properties.get("CustomizedMetricSpecification"):
            metric, statistic, period_s = custom["MetricName"], custom["Statistic"], 60
        else:
            metric, statistic, period_s = PREDEFINED[
                properties["PredefinedMetricSpecification"]["PredefinedMetricType"]
            ]
        return cls(
            name=name,
            metric=metric,
            statistic=statistic,
            period_s=period_s,
            target=float(properties["TargetValue"]),
            out_cooldown_s=float(properties.get("ScaleOutCooldown", TRACKING_COOLDOWN_S)),
            in_cooldown_s=float(properties.get("ScaleInCooldown", TRACKING_COOLDOWN_S)),
            scale_in=not properties.get("DisableScaleIn", False),
        )

    @property
    def high(self) -> Alarm:
        """The alarm that Application Auto Scaling creates for a scale-out."""
        return self._alarm(TRACKING_PERIODS_OUT, self.target, "GreaterThanThreshold")

    @property
    def low(self) -> Alarm:
        """The alarm that Application Auto Scaling creates for a scale-in."""
        return self._alarm(TRACKING_IN_S // self.period_s, self.target * TRACKING_IN_RATIO, "LessThanThreshold")

    def _alarm(self, periods: int, threshold: float, comparison: str) -> Alarm:
        return Alarm(
            metric=self.metric,
            statistic=self.statistic,
            period_s=self.period_s,
            periods=periods,
            datapoints=periods,
            threshold=threshold,
            comparison=comparison,
        )

    def wanted(self, value: float, instances: int) -> int:
        """Returns the number of instances at which the metric has its target. value: the metric per instance."""
        # A product such as 3 * 4 / 4 must not become 4 instances through its binary representation.
        return math.ceil(round(instances * value / self.target, 9))


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An adjustment for distances of the metric from the threshold in [lower, upper)."""

    lower: float
    upper: float
    adjustment: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepScaling:
    """A policy that an alarm invokes. kind: ChangeInCapacity, ExactCapacity or PercentChangeInCapacity."""

    name: str
    kind: str
    steps: tuple[Step, ...]
    cooldown_s: float
    alarm: Alarm

    @property
    def high(self) -> Alarm:
        return self.alarm

    @property
    def out_cooldown_s(self) -> float:
        return self.cooldown_s

    @classmethod
    def from_properties(cls, name: str, properties: Mapping[str, Any], alarm: Alarm) -> StepScaling:
        """Reads a StepScalingPolicyConfiguration."""
        return cls(
            name=name,
            kind=properties["AdjustmentType"],
            steps=tuple(
                Step(
                    lower=float(step.get("MetricIntervalLowerBound", -math.inf)),
                    upper=float(step.get("MetricIntervalUpperBound", math.inf)),
                    adjustment=int(step["ScalingAdjustment"]),
                )
                for step in properties["StepAdjustments"]
            ),
            cooldown_s=float(properties.get("Cooldown", TRACKING_COOLDOWN_S)),
            alarm=alarm,
        )

    def wanted(self, value: float, instances: int) -> int:
        """Returns the number of instances after the step for a value of the metric."""
        distance = value - self.alarm.threshold
        for step in self.steps:
            if step.lower <= distance < step.upper:
                if self.kind == "ExactCapacity":
                    return step.adjustment
                if self.kind == "PercentChangeInCapacity":
                    change = instances * step.adjustment / 100
                    # Values between 0 and 1 count as 1, others lose their fraction (user guide, "Step scaling").
                    return instances + (int(math.copysign(1, change)) if 0 < abs(change) < 1 else int(change))
                return instances + step.adjustment
        return instances


Policy = TargetTracking | StepScaling


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A scalable target: the instances of an endpoint, minimum to maximum, and its policies."""

    endpoint: str
    minimum: int
    maximum: int
    tracking: tuple[TargetTracking, ...] = ()
    steps: tuple[StepScaling, ...] = ()


def targets(template: Mapping[str, Any]) -> dict[str, Target]:
    """Returns the scalable targets of a synthesized template by the name of their endpoint. Serverless endpoints have
    none."""
    resources: Mapping[str, Any] = template["Resources"]

    def of_type(kind: str) -> dict[str, Mapping[str, Any]]:
        return {name: one["Properties"] for name, one in resources.items() if one["Type"] == kind}

    alarms = [one for one in of_type("AWS::CloudWatch::Alarm").values() if "MetricName" in one]
    policies = of_type("AWS::ApplicationAutoScaling::ScalingPolicy")
    found = {}
    for target_id, properties in of_type("AWS::ApplicationAutoScaling::ScalableTarget").items():
        own = {name: one for name, one in policies.items() if one["ScalingTargetId"] == {"Ref": target_id}}
        endpoint = str(properties["ResourceId"]).split("/")[1]
        found[endpoint] = Target(
            endpoint=endpoint,
            minimum=int(properties["MinCapacity"]),
            maximum=int(properties["MaxCapacity"]),
            tracking=tuple(
                TargetTracking.from_properties(one["PolicyName"], one["TargetTrackingScalingPolicyConfiguration"])
                for one in own.values()
                if one["PolicyType"] == "TargetTrackingScaling"
            ),
            steps=tuple(
                StepScaling.from_properties(
                    one["PolicyName"], one["StepScalingPolicyConfiguration"], Alarm.from_properties(alarm)
                )
                for name, one in own.items()
                if one["PolicyType"] == "StepScaling"
                for alarm in alarms
                if {"Ref": name} in alarm.get("AlarmActions", ())
            ),
        )
    return found


@dataclass(frozen=True, slots=True)
class Activity:
    """One change of the number of instances, and the policy that caused it."""

    at_s: float
    before: int
    after: int
    policy: str


@dataclass(slots=True)
class _Cooldown:
    """Of the last change by a policy. Until `end_s`, a scale-out is computed from the number of instances before it."""

    duration_s: float = 0
    end_s: float = -math.inf
    instances: int = 0

    def begin(self, now_s: float) -> None:
        self.end_s = now_s + self.duration_s


@dataclass(slots=True)
class Autoscaling:
    """The scaling of one endpoint. Its methods take times in seconds, which must not decrease.

    activities: every change, oldest first.
    """

    target: Target
    activities: list[Activity] = field(default_factory=list)
    _samples: Samples = field(init=False)
    _out: dict[str, _Cooldown] = field(default_factory=dict)
    _in: _Cooldown = field(default_factory=_Cooldown)
    _last: _Cooldown = field(default_factory=_Cooldown)

    def __post_init__(self) -> None:
        alarms = [step.alarm for step in self.target.steps]
        alarms += [alarm for policy in self.target.tracking for alarm in (policy.high, policy.low)]
        self._samples = Samples(keep_s=max((alarm.range_s + alarm.period_s for alarm in alarms), default=0))

    def record(self, at_s: float, metrics: Mapping[str, float]) -> None:
        """Records one sample of each metric, as `published` returns them; once a minute, as SageMaker."""
        for metric, value in metrics.items():
            self._samples.record(metric, at_s, value)

    def desired(self, now_s: float, instances: int, *, changing: bool = False) -> int:
        """Evaluates all policies and returns the new number of instances, which is within minimum and maximum.

        instances: the number that was last desired. changing: whether instances are starting or stopping.
        """
        limits = self.target
        if changing:
            self._last.begin(now_s)
            return instances
        if not limits.minimum <= instances <= limits.maximum:
            return min(max(instances, limits.minimum), limits.maximum)
        return self._scaled_out(now_s, instances) or self._scaled_in(now_s, instances)

    def _scaled_out(self, now_s: float, instances: int) -> int | None:
        """Returns the new number after a scale-out, None without one."""
        after, cause = instances, None
        policies: tuple[Policy, ...] = (*self.target.tracking, *self.target.steps)
        for policy in policies:
            value = self._breaching(policy.high, now_s)
            if value is not None:
                cooldown = self._out.get(policy.name)
                base = cooldown.instances if cooldown and now_s < cooldown.end_s else instances
                wanted = min(policy.wanted(value, base), self.target.maximum)
                if wanted > after:
                    after, cause = wanted, policy
        if cause is None:
            return None
        cooldown = self._out.setdefault(cause.name, _Cooldown())
        if now_s >= cooldown.end_s:
            cooldown.instances = instances
        cooldown.duration_s = cause.out_cooldown_s
        cooldown.begin(now_s)
        self._last, self._in = cooldown, _Cooldown()
        self.activities.append(Activity(now_s, instances, after, cause.name))
        return after

    def _scaled_in(self, now_s: float, instances: int) -> int:
        """Returns the new number after a scale-in, or `instances` without one."""
        after, cause = self.target.minimum, None
        for policy in self.target.tracking:
            value = self._breaching(policy.low, now_s) if policy.scale_in else None
            wanted = instances if value is None else max(policy.wanted(value, instances), after)
            if wanted >= after:
                after, cause = wanted, policy
        if cause is None or after >= instances or now_s < self._in.end_s:
            return instances
        self._last = self._in = _Cooldown(cause.in_cooldown_s)
        self._in.begin(now_s)
        self._out.clear()
        self.activities.append(Activity(now_s, instances, after, cause.name))
        return after

    def _breaching(self, alarm: Alarm, now_s: float) -> float | None:
        """Returns the newest datapoint of an active alarm; None for any other, or without data."""
        if alarm.state(self._samples, now_s) != "ALARM":
            return None
        return self._samples.datapoints(alarm.metric, alarm.statistic, alarm.period_s, 1, now_s)[0]
