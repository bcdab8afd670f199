"""Each workaround of local/workarounds.py: the emulator ignores the feature unless it is applied. The first half
of a test fails when a newer emulator no longer needs the workaround: then remove the workaround."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import httpx2
import pytest
from botocore.exceptions import ClientError

from local import workarounds
from local.connect import client
from local.deploy import Deployed
from tests.e2e.conftest import Running, wait_until

TEMPLATE: dict[str, Any] = {
    "Resources": {
        "Table": {
            "Type": "AWS::DynamoDB::Table",
            "Properties": {
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "BillingMode": "PAY_PER_REQUEST",
                "TimeToLiveSpecification": {"AttributeName": "expires_at", "Enabled": True},
            },
        },
        "Bucket": {
            "Type": "AWS::S3::Bucket",
            "Properties": {
                "LifecycleConfiguration": {
                    "Rules": [{"Status": "Enabled", "Prefix": "results/", "ExpirationInDays": 3}]
                }
            },
        },
    }
}


@pytest.fixture(scope="module")
def bare(running: Running) -> Deployed:
    """A small stack of its own, without the workarounds."""
    return deployed_bare(running, "workarounds", TEMPLATE)


def deployed_bare(running: Running, name: str, template: dict[str, Any]) -> Deployed:
    cloudformation = client(running.config, "cloudformation")
    cloudformation.create_stack(StackName=name, TemplateBody=json.dumps(template))

    def complete() -> bool:
        return bool(cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE")

    wait_until(complete, "the stack")
    resources = cloudformation.describe_stack_resources(StackName=name)["StackResources"]
    return Deployed({}, {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources})


def test_records_expire_only_with_the_workaround(running: Running, bare: Deployed) -> None:
    dynamodb = client(running.config, "dynamodb")

    def status() -> str:
        found = dynamodb.describe_time_to_live(TableName=bare.ids["Table"])["TimeToLiveDescription"]
        return str(found["TimeToLiveStatus"])

    assert status() == "DISABLED"
    workarounds.set_time_to_live(running.config, TEMPLATE, bare)
    assert status() == "ENABLED"


def test_objects_expire_only_with_the_workaround(running: Running, bare: Deployed) -> None:
    s3 = client(running.config, "s3")
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bare.ids["Bucket"])
    workarounds.set_lifecycle_rules(running.config, TEMPLATE, bare)
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=bare.ids["Bucket"])["Rules"]
    assert (rule["Filter"]["Prefix"], rule["Expiration"]["Days"]) == ("results/", 3)


def test_the_key_source_is_respected_only_with_the_workaround(running: Running) -> None:
    function = next(
        one["FunctionArn"]
        for one in client(running.config, "lambda").list_functions()["Functions"]
        if one["Handler"] == "lambdas.authorize.handler"
    )
    template = key_source_template(function)
    deployed = deployed_bare(running, "key-source", template)
    url = f"{running.config.endpoint_url}/restapis/{deployed.ids['Api']}/test/_user_request_/anything"
    headers = {"Authorization": f"Bearer {running.stack.api_key}"}

    def status() -> int:
        return httpx2.get(url, headers=headers, trust_env=False).status_code

    assert status() == 403
    workarounds.remove_api_key_requirement(running.config, template, deployed)
    assert status() == 200


def key_source_template(function: str) -> dict[str, Any]:
    """Returns the template of an API with one method, which returns {} to callers that the authorizer allows."""
    uri = f"arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{function}/invocations"
    api, stage = {"Ref": "Api"}, {"RestApiId": {"Ref": "Api"}, "DeploymentId": {"Ref": "Deployment"}}
    parts: dict[str, tuple[str, dict[str, Any]]] = {
        "Api": ("RestApi", {"Name": "key-source", "ApiKeySourceType": "AUTHORIZER"}),
        "Proxy": (
            "Resource",
            {"RestApiId": api, "ParentId": {"Fn::GetAtt": ["Api", "RootResourceId"]}, "PathPart": "{proxy+}"},
        ),
        "Keys": (
            "Authorizer",
            {
                "RestApiId": api, "Name": "keys", "Type": "REQUEST", "AuthorizerUri": uri,
                "AuthorizerResultTtlInSeconds": 0,
            },
        ),
        "Any": (
            "Method",
            {
                "RestApiId": api, "ResourceId": {"Ref": "Proxy"}, "HttpMethod": "ANY", "ApiKeyRequired": True,
                "AuthorizationType": "CUSTOM", "AuthorizerId": {"Ref": "Keys"}, "Integration": {"Type": "MOCK"},
            },
        ),
        "Deployment": ("Deployment", {"RestApiId": api}),
        "Stage": ("Stage", {**stage, "StageName": "test"}),
    }  # fmt: skip
    resources = {name: {"Type": f"AWS::ApiGateway::{kind}", "Properties": one} for name, (kind, one) in parts.items()}
    resources["Deployment"]["DependsOn"] = ["Any"]
    return {"Resources": resources}


def test_the_deployed_stack_has_its_workarounds(running: Running) -> None:
    found = client(running.config, "dynamodb").describe_time_to_live(TableName=running.stack.table)
    assert found["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    rules = running.images.s3.get_bucket_lifecycle_configuration(Bucket=running.stack.results)["Rules"]
    assert {rule["Filter"].get("Prefix", "") for rule in rules} >= {"results/", "bundles/"}


def test_a_binary_response_without_accept_is_decoded_only_with_the_patch_of_the_launcher(running: Running) -> None:
    program = "from ministack.services.apigateway_v1 import _media_type_matches as matches; print(matches('', ['*/*']))"
    python = running.config.made / "emulator" / "bin" / "python"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stdout.split()[-1] == "False"
    request = running.images.http.build_request("GET", "/v1/docs", headers={"Accept-Encoding": "gzip"})
    del request.headers["Accept"]
    response = running.images.http.send(request)  # a compressed page is a binary response
    assert (response.headers["content-encoding"], response.text[:15]) == ("gzip", "<!doctype html>")


@pytest.mark.parametrize(
    ("name", "resource"),
    [
        ("model", {"Type": "AWS::SageMaker::Model", "Properties": {}}),
        (
            "alarm",
            {
                "Type": "AWS::CloudWatch::Alarm",
                "Properties": {
                    "ComparisonOperator": "GreaterThanThreshold",
                    "EvaluationPeriods": 1,
                    "Threshold": 1,
                    "Metrics": [{"Id": "sum", "Expression": "1 + 1"}],
                },
            },
        ),
    ],
)
def test_the_launcher_accepts_resource_types_that_the_emulator_rejects(
    running: Running, name: str, resource: dict[str, Any]
) -> None:
    cloudformation = client(running.config, "cloudformation")
    stack = f"launcher-{name}"
    cloudformation.create_stack(StackName=stack, TemplateBody=json.dumps({"Resources": {"It": resource}}))

    def ended() -> bool:
        status = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
        return not status.endswith("_IN_PROGRESS")

    wait_until(ended, "the stack")
    assert cloudformation.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
    assert resource["Type"] in json.loads(running.config.sagemaker_file.read_text())
