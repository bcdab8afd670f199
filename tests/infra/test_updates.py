"""Checks what a deployment over another one does: each update succeeds, loses nothing and can roll back."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tests.infra.account.assembly import Assembly
from tests.infra.account.updates import left_by_a_failed_creation, problems, update

ONE_STAGE = (
    "serverless",
    "off",
    "gpu",
    "other_gpu",
    "cpu",
    "realtime",
    "weights",
    "waf",
    "mail",
    "company",
    "door",
    "web",
)
"""Variants of one stage. An update leads from each to each other: mode, instance type, weights, firewall, e-mail."""


@pytest.mark.parametrize(("old", "new"), [*permutations(ONE_STAGE, 2)])
def test_every_change_of_a_stage_succeeds_and_rolls_back(variants: dict[str, Assembly], old: str, new: str) -> None:
    """The way back is the pair in the other order."""
    assert problems(variants[old], variants[new]) == []


@pytest.mark.parametrize("name", [*ONE_STAGE, "dev", "prod", "everything"])
def test_another_image_is_an_update_in_place_of_every_endpoint(variants: dict[str, Assembly], name: str) -> None:
    old = variants[name]
    (tag,) = {one.properties["Tag"] for one in old.of("Custom::Image")}
    new = old.edited(tag, "0123456789abcdef")
    assert problems(old, new) == []
    assert problems(new, old) == []
    effects = {one.effect for one in update(old, new) if "AWS::SageMaker::Endpoint)" in one.resource}
    assert effects == {"in place"}


def test_an_unchanged_stage_has_no_change(variants: dict[str, Assembly]) -> None:
    assert update(variants["everything"], variants["everything"]) == []


def stacks(resources: dict[str, Any], **others: Any) -> Assembly:
    templates = {"app": {"Resources": resources, **others}}
    return Assembly(templates, {"app": set()})


def endpoint(variant: dict[str, Any], *, name: str = "bulk", retain: bool = True, **config: Any) -> dict[str, Any]:
    """The resources of an endpoint."""
    model = {"Image": "image:1"}
    return {
        "Model": {"Type": "AWS::SageMaker::Model", "Properties": {"PrimaryContainer": model}},
        "Config": {
            "Type": "AWS::SageMaker::EndpointConfig",
            "Properties": {
                "ProductionVariants": [
                    {"VariantName": "main", "ModelName": {"Fn::GetAtt": ["Model", "ModelName"]}, **variant}
                ],
                **config,
            },
        },
        "Endpoint": {
            "Type": "AWS::SageMaker::Endpoint",
            "Properties": {
                "EndpointName": name,
                "EndpointConfigName": {"Fn::GetAtt": ["Config", "EndpointConfigName"]},
                **({"RetainAllVariantProperties": True} if retain else {}),
            },
        },
    }


def scaled(resources: dict[str, Any]) -> dict[str, Any]:
    target = {
        "ResourceId": "endpoint/bulk/variant/main",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
        "ServiceNamespace": "sagemaker",
    }
    return {**resources, "Target": {"Type": "AWS::ApplicationAutoScaling::ScalableTarget", "Properties": target}}


G6, G5 = ({"InstanceType": f"ml.{family}.xlarge", "InitialInstanceCount": 1} for family in ("g6", "g5"))
SERVERLESS = {"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 2}}
ASYNC: dict[str, Any] = {"AsyncInferenceConfig": {"OutputConfig": {}}}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (endpoint(G6), endpoint(SERVERLESS), "real-time endpoint cannot become serverless"),
        (endpoint(SERVERLESS), endpoint(G6), "serverless endpoint cannot become real-time"),
        (endpoint(G6, **ASYNC), endpoint(G6), "asynchronous endpoint cannot become real-time"),
        (scaled(endpoint(G6)), scaled(endpoint(G5)), "the instance type of main scales"),
        (endpoint(G6, retain=False), endpoint(G5, retain=False), "loses: app/Endpoint"),
    ],
)
def test_an_update_that_sagemaker_refuses_is_named(old: dict[str, Any], new: dict[str, Any], problem: str) -> None:
    (found,) = problems(stacks(old), stacks(new))
    assert problem in found


def test_an_endpoint_of_another_kind_under_another_name_is_accepted() -> None:
    assert problems(stacks(endpoint(G6)), stacks(endpoint(SERVERLESS, name="bulk-serverless"))) == []
    assert problems(stacks(endpoint(G6)), stacks(endpoint(G5))) == []


BUCKET = {"Type": "AWS::S3::Bucket", "DeletionPolicy": "Retain", "Properties": {"BucketName": "photos"}}


def queue(name: str, **properties: Any) -> dict[str, Any]:
    return {name: {"Type": "AWS::SQS::Queue", "Properties": properties}}


def index(name: str) -> dict[str, Any]:
    return {"IndexName": name, "KeySchema": [{"AttributeName": name, "KeyType": "HASH"}]}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (queue("Jobs", QueueName="jobs"), queue("Jobs", QueueName="jobs", FifoQueue=True), "under the same name"),
        (queue("Jobs", QueueName="jobs"), queue("Work", QueueName="jobs"), "jobs exists as app/Jobs"),
        (queue("Jobs"), {}, "loses: app/Jobs"),
        ({"Photos": BUCKET}, {}, "it remains, and the way back cannot create it again"),
        (queue("One"), {"One": {"Type": "AWS::SNS::Topic"}}, "cannot change the type"),
        (
            {"Jobs": {"Type": "AWS::DynamoDB::Table", "Properties": {"GlobalSecondaryIndexes": [index("state")]}}},
            {"Jobs": {"Type": "AWS::DynamoDB::Table", "Properties": {"GlobalSecondaryIndexes": [index("owner")]}}},
            "more than one index changes",
        ),
    ],
)  # fmt: skip
def test_an_update_that_cloudformation_refuses_is_named(old: dict[str, Any], new: dict[str, Any], problem: str) -> None:
    assert [one for one in problems(stacks(old), stacks(new)) if problem in one]


def test_a_reference_to_a_replaced_resource_replaces_in_turn() -> None:
    def resources(variant: dict[str, Any]) -> Assembly:
        return stacks(endpoint(variant))

    effects = {(one.resource.split()[0], one.path): one.effect for one in update(resources(G6), resources(G5))}
    assert effects == {
        ("app/Config", "ProductionVariants"): "replacement",
        ("app/Endpoint", "EndpointConfigName"): "in place",
    }


def test_an_export_in_use_can_not_be_removed() -> None:
    def stage(*, exported: bool) -> Assembly:
        output = {"Outputs": {"Name": {"Value": "one", "Export": {"Name": "name"}}}} if exported else {}
        user = {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Fn::ImportValue": "name"}}}}
        without = {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "one"}}}
        templates = {"app": {"Resources": {}, **output}, "user": {"Resources": user if exported else without}}
        return Assembly(templates, {"app": set(), "user": {"app"}})

    (found,) = problems(stage(exported=True), stage(exported=False))
    assert "another stack imports the export" in found
    assert problems(stage(exported=True), stage(exported=True)) == []


def test_a_stack_that_the_application_lacks_stays() -> None:
    user = {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": {"Fn::ImportValue": "name"}}}}
    without = {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {"DisplayName": "one"}}}
    output = {"Outputs": {"Name": {"Value": "one", "Export": {"Name": "name"}}}}
    templates = {"network": {"Resources": queue("Jobs"), **output}, "user": {"Resources": user}}
    old = Assembly(templates, {"network": set(), "user": {"network"}})
    new = Assembly({"user": {"Resources": without}}, {"user": set()})
    assert [one.effect for one in update(old, new)] == ["in place"]


def test_a_function_that_may_not_read_the_tag_of_a_bucket_is_named(variants: dict[str, Assembly]) -> None:
    old, new = variants["realtime"], variants["company"]
    found = problems(old.edited("s3:GetBucketTagging", "s3:GetObject"), new)
    assert len(found) == 3
    assert "StorageInboxAutoDelete" in " ".join(found)


def test_a_failed_creation_leaves_resources_with_the_policy_retain() -> None:
    kept = {"Photos": BUCKET, "Better": {**BUCKET, "DeletionPolicy": "RetainExceptOnCreate"}}
    assert left_by_a_failed_creation(stacks(kept)) == ["app/Photos (AWS::S3::Bucket)"]
