"""Checks that CloudFormation creates resources in an order that the services accept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra.account.assembly import Assembly
from tests.infra.account.order import ORDERS, Order, queue_policy_before_notification, violations
from tests.infra.account.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_resources_are_created_in_order(variants: dict[str, Assembly], name: str) -> None:
    assert violations(variants[name], ORDERS) == []


@pytest.mark.parametrize("order", ORDERS, ids=lambda one: one.pairs.__name__)
def test_every_rule_applies_to_a_stage(variants: dict[str, Assembly], order: Order) -> None:
    assert [pair for assembly in variants.values() for pair in order.pairs(assembly)]


def test_a_missing_dependency_is_named(variants: dict[str, Assembly]) -> None:
    assembly = variants["dev"].edited('"DependsOn"', '"DependedOn"')
    rule = Order("S3 validates that it may send to the queue", queue_policy_before_notification)
    (found,) = violations(assembly, [rule])
    assert "AWS::S3::Bucket) does not wait for" in found
    assert violations(variants["dev"], [rule]) == []


def test_the_order_follows_references_dependencies_imports_and_stacks() -> None:
    template: dict[str, Any] = {
        "Resources": {
            "A": {"Type": "A::B::T", "DependsOn": "B"},
            "B": {"Type": "A::B::T", "Properties": {"P": {"Fn::Sub": "${C.Arn}/x"}}},
            "C": {"Type": "A::B::T"},
        },
    }
    exporting: dict[str, Any] = {
        "Resources": {"D": {"Type": "A::B::T", "DependsOn": ["E"]}, "E": {"Type": "A::B::T"}},
        "Outputs": {"O": {"Value": {"Ref": "D"}, "Export": {"Name": "d"}}},
    }
    importing: dict[str, Any] = {"Resources": {"F": {"Type": "A::B::T", "Properties": {"P": {"Fn::ImportValue": "d"}}}}}
    stacks = {"one": template, "two": exporting, "three": importing}
    assembly = Assembly(stacks, {"one": set(), "two": set(), "three": {"one"}})
    assert assembly.waits_for(("one", "A")) == {("one", "B"), ("one", "C")}
    assert assembly.waits_for(("three", "F")) == {
        ("two", "D"),
        ("two", "E"),
        *assembly.waits_for(("one", "A")),
        ("one", "A"),
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_the_bulk_endpoint_is_deployed_last(variants: dict[str, Assembly], name: str) -> None:
    """`cdk deploy --all` stops at the first stack that fails, and an account may lack the quota of this endpoint."""
    stacks = variants[name].dependencies
    (bulk,) = [stack for stack in stacks if stack.startswith("MaskdropBulk-")]
    assert stacks[bulk] >= {stack for stack in stacks if not stack.startswith(("MaskdropBulk-", "MaskdropNetwork-"))}
