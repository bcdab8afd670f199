"""Checks that the metrics which the templates read exist."""

from __future__ import annotations

import pytest

from tests.infra.account.assembly import Assembly
from tests.infra.account.metrics import DIMENSIONS, readings, unpublished
from tests.infra.account.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_metric_is_published_with_the_dimensions_by_which_it_is_read(
    variants: dict[str, Assembly], name: str
) -> None:
    assert unpublished(variants[name]) == []


def test_every_row_of_the_table_is_read(variants: dict[str, Assembly]) -> None:
    read = {(one.namespace, one.metric) for assembly in variants.values() for one in readings(assembly)}
    assert DIMENSIONS.keys() - read == set()


def test_a_metric_that_is_read_by_another_dimension_is_named() -> None:
    alarm = {
        "Namespace": "AWS/SageMaker",
        "MetricName": "InvocationFailures",
        "Dimensions": [{"Name": "EndpointName", "Value": "bulk"}],
    }
    stack = {"Resources": {"Fails": {"Type": "AWS::CloudWatch::Alarm", "Properties": alarm}}}
    (found,) = unpublished(Assembly({"app": stack}, {"app": set()}))
    assert "reads AWS/SageMaker InvocationFailures by EndpointName" in found
