"""Each bridge of local/bridges.py: the emulator does not do it by itself, and with the bridge it does. The first half
of a test fails when a newer emulator needs the bridge no longer: then the bridge goes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from local import bridges
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
    """A small stack of its own, without the bridges."""
    cloudformation = client(running.config, "cloudformation")
    cloudformation.create_stack(StackName="bridges", TemplateBody=json.dumps(TEMPLATE))

    def complete() -> bool:
        return bool(
            cloudformation.describe_stacks(StackName="bridges")["Stacks"][0]["StackStatus"] == "CREATE_COMPLETE"
        )

    wait_until(complete, "the stack")
    resources = cloudformation.describe_stack_resources(StackName="bridges")["StackResources"]
    return Deployed({}, {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in resources})


def test_records_expire_only_over_a_bridge(running: Running, bare: Deployed) -> None:
    dynamodb = client(running.config, "dynamodb")

    def status() -> str:
        found = dynamodb.describe_time_to_live(TableName=bare.ids["Table"])["TimeToLiveDescription"]
        return str(found["TimeToLiveStatus"])

    assert status() == "DISABLED"
    bridges.expire_records(running.config, TEMPLATE, bare)
    assert status() == "ENABLED"


def test_objects_expire_only_over_a_bridge(running: Running, bare: Deployed) -> None:
    s3 = client(running.config, "s3")
    with pytest.raises(ClientError, match="NoSuchLifecycleConfiguration"):
        s3.get_bucket_lifecycle_configuration(Bucket=bare.ids["Bucket"])
    bridges.expire_objects(running.config, TEMPLATE, bare)
    [rule] = s3.get_bucket_lifecycle_configuration(Bucket=bare.ids["Bucket"])["Rules"]
    assert (rule["Filter"]["Prefix"], rule["Expiration"]["Days"]) == ("results/", 3)


def test_the_deployed_stack_has_its_bridges(running: Running) -> None:
    found = client(running.config, "dynamodb").describe_time_to_live(TableName=running.stack.table)
    assert found["TimeToLiveDescription"]["TimeToLiveStatus"] == "ENABLED"
    rules = running.pictures.s3.get_bucket_lifecycle_configuration(Bucket=running.stack.results)["Rules"]
    assert {rule["Filter"].get("Prefix", "") for rule in rules} >= {"results/", "bundles/"}


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
def test_the_launcher_takes_types_that_the_emulator_refuses(
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
