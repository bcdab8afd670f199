"""Checks the requests that CloudFormation sends for every resource against the models of the API, and the checker."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.infra.account.apis import APIS, WITHOUT_API
from tests.infra.account.assembly import Assembly, Resource
from tests.infra.account.shapes import check, faults, input_shape
from tests.infra.account.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_resource_is_a_valid_request(variants: dict[str, Assembly], name: str) -> None:
    assert check(variants[name], APIS, WITHOUT_API) == []


def test_every_row_of_the_table_names_an_operation_of_its_service() -> None:
    for api in APIS.values():
        assert input_shape(api.service, api.operation).type_name == "structure"
        for target in api.moved.values():
            first = target.removeprefix("*").partition(".")[0]
            if first.startswith(("Put", "Update", "Attach", "Modify", "Set")):
                assert input_shape(api.service, first).type_name == "structure"


CONFIG = {
    "ProductionVariants": [
        {
            "VariantName": "main",
            "ModelName": "model",
            "InstanceType": "ml.g6.xlarge",
            "InitialInstanceCount": 1,
            "InferenceAmiVersion": "al2023-ami-sagemaker-inference-gpu-4-1",
        }
    ]
}


def faults_of(kind: str, properties: dict[str, Any]) -> list[str]:
    return [*faults(Resource("stack", "One", kind, {}, properties), APIS, WITHOUT_API)]


def changed(path: str, value: Any) -> dict[str, Any]:
    """A copy of CONFIG whose variant has another value; None removes it."""
    properties = deepcopy(CONFIG)
    properties["ProductionVariants"][0].pop(path, None)
    if value is not None:
        properties["ProductionVariants"][0][path] = value
    return properties


def test_a_valid_resource_has_no_fault() -> None:
    assert faults_of("AWS::SageMaker::EndpointConfig", CONFIG) == []


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("InstanceType", "ml.g99.xlarge", "InstanceType must be one of"),
        ("InferenceAmiVersion", "al2023-gpu", "InferenceAmiVersion must be one of"),
        ("VariantName", None, "VariantName is required"),
        ("VariantName", "m" * 64, "length of CreateEndpointConfig.ProductionVariants[0].VariantName must be 0 to 63"),
        ("VariantName", "under_score", "VariantName must match"),
        ("ContainerStartupHealthCheckTimeoutInSeconds", 10, "must be 60 to 3600; got 10"),
        ("InitialInstanceCount", "one", "InitialInstanceCount must be of type integer"),
        ("InitialInstanceCount", True, "InitialInstanceCount must be of type integer"),
        ("RoutingConfig", "LEAST_OUTSTANDING_REQUESTS", "RoutingConfig must be of type structure"),
        ("InstanceKind", "ml.g6.xlarge", "ProductionVariants.InstanceKind is not a member of ProductionVariant"),
    ],
)
def test_an_invalid_property_is_a_fault(path: str, value: Any, fault: str) -> None:
    found = faults_of("AWS::SageMaker::EndpointConfig", changed(path, value))
    assert len([one for one in found if fault in one]) == 1, found


def test_a_renamed_property_is_checked_under_its_name_in_the_api() -> None:
    rules = [{"ExpirationInDays": 5, "Status": "On"}]
    (found,) = faults_of("AWS::S3::Bucket", {"LifecycleConfiguration": {"Rules": rules}})
    assert "Status must be one of Enabled, Disabled" in found
    encryption = {"ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "rot13"}}]}
    (found,) = faults_of("AWS::S3::Bucket", {"BucketEncryption": encryption})
    assert "SSEAlgorithm must be one of" in found


def test_each_item_of_a_list_can_be_a_request() -> None:
    policies = [
        {"PolicyName": "one", "PolicyDocument": {"Statement": []}},
        {"PolicyName": "t w o", "PolicyDocument": {}},
    ]
    role = {"AssumeRolePolicyDocument": {"Statement": []}, "Policies": policies}
    (found,) = faults_of("AWS::IAM::Role", role)
    assert found.startswith("PutRolePolicy.PolicyName must match")


def test_an_attribute_that_is_no_key_of_the_map_is_a_fault() -> None:
    assert faults_of("AWS::SQS::Queue", {"VisibilityTimeout": 30, "RedrivePolicy": {"maxReceiveCount": 3}}) == []
    (found,) = faults_of("AWS::SQS::Queue", {"VisibilityTimeouts": 30})
    assert "VisibilityTimeouts is not a member" in found


def test_a_type_without_a_row_is_a_fault() -> None:
    (found,) = faults_of("AWS::Rekognition::Collection", {"CollectionId": "faces"})
    assert "no row" in found
    assert faults_of("Custom::Image", {"Anything": 1}) == []
