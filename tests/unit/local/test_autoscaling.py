"""The arithmetic of Application Auto Scaling and CloudWatch, with cases that are computed by hand in the comments."""

from __future__ import annotations

import math
from typing import Any

import pytest

from local.autoscaling import (
    Alarm,
    Autoscaling,
    Missing,
    Samples,
    State,
    Step,
    StepScaling,
    Target,
    TargetTracking,
    published,
    targets,
)

ENDPOINT = "maskdrop-test-bulk"
DIMENSIONS = [{"Name": "EndpointName", "Value": ENDPOINT}]

TEMPLATE: dict[str, Any] = {
    "Resources": {
        "Instances": {
            "Type": "AWS::ApplicationAutoScaling::ScalableTarget",
            "Properties": {
                "MinCapacity": 0,
                "MaxCapacity": 10,
                "ResourceId": f"endpoint/{ENDPOINT}/variant/main",
                "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
            },
        },
        "FollowBacklog": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                "PolicyName": "follow-backlog",
                "PolicyType": "TargetTrackingScaling",
                "ScalingTargetId": {"Ref": "Instances"},
                "TargetTrackingScalingPolicyConfiguration": {
                    "CustomizedMetricSpecification": {
                        "MetricName": "ApproximateBacklogSizePerInstance",
                        "Statistic": "Average",
                        "Dimensions": DIMENSIONS,
                    },
                    "ScaleInCooldown": 600,
                    "TargetValue": 4,
                },
            },
        },
        "WakeUp": {
            "Type": "AWS::ApplicationAutoScaling::ScalingPolicy",
            "Properties": {
                "PolicyName": "wake-up",
                "PolicyType": "StepScaling",
                "ScalingTargetId": {"Ref": "Instances"},
                "StepScalingPolicyConfiguration": {
                    "AdjustmentType": "ChangeInCapacity",
                    "Cooldown": 300,
                    "StepAdjustments": [{"MetricIntervalLowerBound": 0, "ScalingAdjustment": 1}],
                },
            },
        },
        "AsleepWithWork": {
            "Type": "AWS::CloudWatch::Alarm",
            "Properties": {
                "AlarmActions": [{"Ref": "WakeUp"}],
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "EvaluationPeriods": 1,
                "MetricName": "HasBacklogWithoutCapacity",
                "Period": 60,
                "Statistic": "Maximum",
                "Threshold": 1,
                "TreatMissingData": "notBreaching",
            },
        },
        "Other": {"Type": "AWS::S3::Bucket", "Properties": {}},
    }
}

TRACKING = TargetTracking(
    name="track",
    metric="load",
    statistic="Average",
    period_s=60,
    target=4,
    out_cooldown_s=300,
    in_cooldown_s=600,
)


def alarm(missing: Missing = "missing", periods: int = 3, datapoints: int = 3) -> Alarm:
    return Alarm(
        metric="load",
        statistic="Average",
        period_s=60,
        periods=periods,
        datapoints=datapoints,
        threshold=5,
        comparison="GreaterThanThreshold",
        missing=missing,
    )


def samples(*values: float | None) -> Samples:
    """One sample a minute from time 0; None: no sample in that minute."""
    made = Samples(keep_s=3600)
    for minute, value in enumerate(values):
        if value is not None:
            made.record("load", minute * 60, value)
    return made


def test_a_template_gives_the_target_its_policies_and_their_alarms() -> None:
    target = targets(TEMPLATE)[ENDPOINT]
    assert (target.minimum, target.maximum) == (0, 10)
    (tracking,) = target.tracking
    assert (tracking.target, tracking.in_cooldown_s, tracking.out_cooldown_s) == (4, 600, 300)
    (wake,) = target.steps
    assert wake.steps == (Step(lower=0, upper=math.inf, adjustment=1),)
    assert (wake.alarm.metric, wake.alarm.missing) == ("HasBacklogWithoutCapacity", "notBreaching")


def test_a_template_without_instances_has_no_target() -> None:
    assert targets({"Resources": {"Bucket": {"Type": "AWS::S3::Bucket", "Properties": {}}}}) == {}


def test_a_predefined_metric_of_high_resolution_has_periods_of_10_seconds() -> None:
    policy = TargetTracking.from_properties(
        "calls",
        {
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": "SageMakerVariantConcurrentRequestsPerModelHighResolution"
            },
            "TargetValue": 4,
        },
    )
    assert (policy.high.period_s, policy.high.periods) == (10, 3)
    assert (policy.low.period_s, policy.low.periods) == (10, 90)  # as measured in an account: 90 x 10 s


def test_the_backlog_per_instance_is_not_published_without_instances() -> None:
    assert published(8, 2)["ApproximateBacklogSizePerInstance"] == 4
    assert published(8, 0) == {"ApproximateBacklogSize": 8, "HasBacklogWithoutCapacity": 1}
    assert published(0, 0)["HasBacklogWithoutCapacity"] == 0


@pytest.mark.parametrize(
    ("statistic", "expected"), [("Average", 4), ("Sum", 12), ("Minimum", 1), ("Maximum", 9), ("SampleCount", 3)]
)
def test_a_datapoint_is_the_statistic_of_a_complete_period(statistic: str, expected: float) -> None:
    made = Samples(keep_s=600)
    for at_s, value in ((60, 9), (80, 2), (119.9, 1), (120, 100)):
        made.record("load", at_s, value)
    # At 125 s the newest complete period is [60, 120); the one before has no sample.
    assert made.datapoints("load", statistic, 60, 2, 125) == [None, expected]


def test_old_samples_are_deleted() -> None:
    made = Samples(keep_s=120)
    for minute in range(10):
        made.record("load", minute * 60, 1)
    assert made.datapoints("load", "Average", 60, 4, 600) == [None, 1, 1, 1]


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ((6, 6, 6), "ALARM"),
        ((6, 6, 5), "OK"),  # the last does not exceed 5
        ((6, None, 6), "OK"),  # 2 of 3
        ((None, None, None), "INSUFFICIENT_DATA"),
    ],
)
def test_an_alarm_needs_as_many_breaching_datapoints_as_it_states(values: tuple[float, ...], state: State) -> None:
    assert alarm().state(samples(*values), 180) == state


def test_two_of_three_datapoints_suffice_for_an_alarm_that_states_two() -> None:
    assert alarm(datapoints=2).state(samples(6, 1, 6), 180) == "ALARM"


@pytest.mark.parametrize(
    ("missing", "state"),
    [("breaching", "ALARM"), ("notBreaching", "OK"), ("missing", "INSUFFICIENT_DATA"), ("ignore", "ALARM")],
)
def test_missing_data_is_treated_as_the_alarm_states(missing: Missing, state: State) -> None:
    assert alarm(missing).state(samples(None, None, None), 180, before="ALARM") == state


@pytest.mark.parametrize(
    ("value", "instances", "wanted"),
    [
        (9, 2, 5),  # 2 * 9 / 4 = 4.5
        (4, 3, 3),
        (2, 3, 2),  # 3 * 2 / 4 = 1.5
        (0, 3, 0),
        (100, 0, 0),  # target tracking cannot leave zero
    ],
)
def test_target_tracking_divides_and_rounds_up(value: float, instances: int, wanted: int) -> None:
    assert TRACKING.wanted(value, instances) == wanted


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        ("ChangeInCapacity", 5, 3),  # distance 0: [0, 10)
        ("ChangeInCapacity", 15, 5),  # distance 10: from 10
        ("ChangeInCapacity", 4, 2),  # distance -1: no step
        ("ExactCapacity", 15, 3),
        ("PercentChangeInCapacity", 5, 3),  # 2 * 1 % = 0.02, which counts as 1
    ],
)
def test_step_scaling_applies_the_step_of_the_distance(kind: str, value: float, wanted: int) -> None:
    policy = StepScaling(
        name="step",
        kind=kind,
        steps=(Step(lower=0, upper=10, adjustment=1), Step(lower=10, upper=math.inf, adjustment=3)),
        cooldown_s=0,
        alarm=alarm(),
    )
    assert policy.wanted(value, 2) == wanted


def scaling(maximum: int = 10, minimum: int = 0) -> Autoscaling:
    return Autoscaling(Target(endpoint="e", minimum=minimum, maximum=maximum, tracking=(TRACKING,)))


def test_it_scales_out_after_three_minutes_above_the_target() -> None:
    subject = scaling()
    seen = []
    for minute in range(4):
        seen.append(subject.desired(minute * 60, 2))
        subject.record(minute * 60, {"load": 9})
    # The datapoints of minutes 0, 1 and 2 are complete at 180 s: 2 * 9 / 4 = 4.5.
    assert seen == [2, 2, 2, 5]
    assert [(one.at_s, one.before, one.after) for one in subject.activities] == [(180, 2, 5)]


def test_a_cooldown_counts_the_instances_that_it_added() -> None:
    subject = scaling()
    for minute in range(3):
        subject.record(minute * 60, {"load": 9})
    assert subject.desired(180, 2) == 5
    subject.record(180, {"load": 9})
    # In the cooldown it computes from 2 instances again: 5 are desired already.
    assert subject.desired(240, 5) == 5
    subject.record(240, {"load": 13})
    assert subject.desired(300, 5) == 7  # 2 * 13 / 4 = 6.5, a larger scale-out


def test_after_the_cooldown_it_computes_from_the_present_number() -> None:
    subject = scaling(maximum=100)
    for minute in range(3):
        subject.record(minute * 60, {"load": 9})
    assert subject.desired(180, 2) == 5
    for minute in range(3, 9):
        subject.record(minute * 60, {"load": 8})
        assert subject.desired((minute + 1) * 60, 5) == (5 if minute < 7 else 10)  # 180 + 300 s; 5 * 8 / 4


def test_it_never_exceeds_the_maximum() -> None:
    subject = scaling(maximum=3)
    for minute in range(3):
        subject.record(minute * 60, {"load": 90})
    assert subject.desired(180, 2) == 3


def test_it_scales_in_to_zero_after_fifteen_minutes_below_the_target() -> None:
    subject = scaling()
    seen = []
    for minute in range(16):
        seen.append(subject.desired(minute * 60, 3))
        subject.record(minute * 60, {"load": 0})
    assert seen == [3] * 15 + [0]


def test_it_keeps_the_minimum() -> None:
    subject = scaling(minimum=1)
    for minute in range(15):
        subject.record(minute * 60, {"load": 0})
    assert subject.desired(900, 3) == 1


def test_it_keeps_its_instances_between_90_percent_of_the_target_and_the_target() -> None:
    subject = scaling()
    for minute in range(30):
        subject.record(minute * 60, {"load": 3.7})
        assert subject.desired((minute + 1) * 60, 3) == 3


def test_a_scale_in_waits_for_the_cooldown_of_the_previous_one() -> None:
    subject = scaling()
    for minute in range(15):
        subject.record(minute * 60, {"load": 2})
    assert subject.desired(900, 8) == 4
    for minute in range(15, 25):
        subject.record(minute * 60, {"load": 2})
        # The cooldown of 600 s ends at 1500 s.
        assert subject.desired((minute + 1) * 60, 4) == (4 if minute < 24 else 2)


def test_a_scale_out_does_not_wait_for_the_cooldown_of_a_scale_in() -> None:
    subject = scaling()
    for minute in range(15):
        subject.record(minute * 60, {"load": 2})
    assert subject.desired(900, 8) == 4
    for minute in range(15, 18):
        subject.record(minute * 60, {"load": 8})
    assert subject.desired(1080, 4) == 8


def test_an_endpoint_that_is_updating_keeps_its_instances() -> None:
    subject = scaling()
    for minute in range(3):
        subject.record(minute * 60, {"load": 9})
    assert subject.desired(180, 2, changing=True) == 2
    assert subject.desired(180, 2) == 5


def test_a_cooldown_begins_when_the_instances_are_in_service() -> None:
    subject = scaling(maximum=100)
    for minute in range(3):
        subject.record(minute * 60, {"load": 9})
    assert subject.desired(180, 2) == 5
    for minute in range(3, 16):
        subject.record(minute * 60, {"load": 9})
        # The change ends at 660 s, its cooldown of 300 s at 960 s: then 5 * 9 / 4 = 11.25.
        changing = minute < 11
        assert subject.desired((minute + 1) * 60, 5, changing=changing) == (5 if minute < 15 else 12)


def test_two_tracking_policies_scale_out_by_the_larger_and_in_only_together() -> None:
    other = TargetTracking(
        name="other",
        metric="calls",
        statistic="Average",
        period_s=60,
        target=10,
        out_cooldown_s=0,
        in_cooldown_s=0,
    )
    subject = Autoscaling(Target(endpoint="e", minimum=0, maximum=10, tracking=(TRACKING, other)))
    for minute in range(3):
        subject.record(minute * 60, {"load": 6, "calls": 20})
    assert subject.desired(180, 2) == 4  # 3 by load, 4 by calls
    for minute in range(3, 18):
        subject.record(minute * 60, {"load": 0, "calls": 9.5})
    assert subject.desired(1080, 4) == 4  # `calls` is above 9, 90 % of its target


def test_a_disabled_scale_in_keeps_the_instances() -> None:
    policy = TargetTracking.from_properties(
        "out-only",
        {
            "CustomizedMetricSpecification": {"MetricName": "load", "Statistic": "Average"},
            "TargetValue": 4,
            "DisableScaleIn": True,
        },
    )
    subject = Autoscaling(Target(endpoint="e", minimum=0, maximum=10, tracking=(policy,)))
    for minute in range(30):
        subject.record(minute * 60, {"load": 0})
    assert subject.desired(1800, 3) == 3


def test_an_alarm_wakes_a_sleeping_endpoint_and_does_not_add_a_second_instance_in_its_cooldown() -> None:
    subject = Autoscaling(targets(TEMPLATE)[ENDPOINT])
    subject.record(0, published(0, 0))
    assert subject.desired(60, 0) == 0
    subject.record(60, published(20, 0))
    assert subject.desired(120, 0) == 1
    subject.record(120, published(20, 0))  # the instance is starting
    assert subject.desired(180, 1) == 1


def test_a_burst_wakes_scales_out_and_ends_at_zero() -> None:
    """40 bundles arrive at an endpoint at zero; each instance processes 2 a minute and starts in 3 minutes."""
    subject = Autoscaling(targets(TEMPLATE)[ENDPOINT])
    backlog, desired, ready, ready_at = 40, 0, 0, 0
    history = []
    for minute in range(60):
        if desired > ready and minute >= ready_at:
            ready = desired
        if desired < ready:
            ready = desired
        backlog -= min(backlog, 2 * ready)
        subject.record(minute * 60, published(backlog, ready))
        after = subject.desired((minute + 1) * 60, desired, changing=desired != ready)
        if after > desired:
            ready_at = minute + 3
        desired = after
        history.append(desired)
    # Minute 0: wakes. Ready in minute 3: 38, 36, 34 per instance, so that ceil(1 * 34 / 4) = 9 are desired in minute 5.
    assert history[:6] == [1, 1, 1, 1, 1, 9]
    assert max(history) == 9
    assert history[-1] == 0
    assert [(one.before, one.after) for one in subject.activities] == [(0, 1), (1, 9), (9, 0)]
