"""Every component writes to a log group of the stacks, which expires."""

from __future__ import annotations

from typing import Any

import pytest

from infra.stages import load
from tests.infra.conftest import Template, synthesize
from tests.infra.test_stack import target


def resources(stacks: dict[str, Template], kind: str) -> list[dict[str, Any]]:
    found = [one for stack in stacks.values() for one in stack.body["Resources"].values() if one["Type"] == kind]
    assert found, kind
    return found


def groups(stacks: dict[str, Template]) -> dict[Any, str]:
    """Returns the logical IDs of the log groups by name; a name with tokens is text of its parts."""
    return {
        text(one["Properties"]["LogGroupName"]): name
        for stack in stacks.values()
        for name, one in stack.body["Resources"].items()
        if one["Type"] == "AWS::Logs::LogGroup"
    }


def text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "".join(one if isinstance(one, str) else target(one) for one in value["Fn::Join"][1])


@pytest.fixture(scope="module")
def prod(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return synthesize(tmp_path_factory.mktemp("prod"), "prod", interactive="realtime")


@pytest.fixture(params=["dev", "prod"])
def stage(request: pytest.FixtureRequest) -> tuple[str, dict[str, Template]]:
    name = request.param
    return name, request.getfixturevalue("stacks" if name == "dev" else "prod")


def test_every_log_group_expires_and_is_deleted_with_its_stack(stage: tuple[str, dict[str, Template]]) -> None:
    name, stacks = stage
    for group in resources(stacks, "AWS::Logs::LogGroup"):
        assert group["Properties"]["RetentionInDays"] == load(name).keep_logs_days
        assert group["DeletionPolicy"] == "Delete"


def test_every_function_and_build_writes_to_a_log_group_of_its_stack(stage: tuple[str, dict[str, Template]]) -> None:
    _, stacks = stage
    for template in stacks.values():
        own = {name for name, one in template.body["Resources"].items() if one["Type"] == "AWS::Logs::LogGroup"}
        for name, one in template.body["Resources"].items():
            if one["Type"] == "AWS::Lambda::Function":
                assert target(one["Properties"]["LoggingConfig"]["LogGroup"]) in own, name
            if one["Type"] == "AWS::CodeBuild::Project":
                assert target(one["Properties"]["LogsConfig"]["CloudWatchLogs"]["GroupName"]) in own, name


def test_no_role_can_create_a_log_group_except_that_of_api_gateway(stacks: dict[str, Template]) -> None:
    """It would be created without a retention period, also after the stack is deleted."""
    for role in resources(stacks, "AWS::IAM::Role"):
        assert "AWSLambdaBasicExecutionRole" not in str(role["Properties"])
        assert "logs:CreateLogGroup" not in str(role["Properties"])


def test_the_api_writes_both_of_its_logs_to_log_groups_that_exist_before_it(
    stage: tuple[str, dict[str, Template]],
) -> None:
    name, stacks = stage
    (api,) = resources(stacks, "AWS::ApiGateway::Stage")
    rest = target(api["Properties"]["RestApiId"])
    found = groups(stacks)
    execution = found[f"API-Gateway-Execution-Logs_{rest}/{name}"]
    assert execution in api["DependsOn"]
    assert target(api["Properties"]["AccessLogSetting"]["DestinationArn"]) == found[f"/maskdrop/{name}/api-access"]


def test_every_endpoint_writes_to_a_log_group_that_exists_before_it(stage: tuple[str, dict[str, Template]]) -> None:
    _, stacks = stage
    found = groups(stacks)
    for endpoint in resources(stacks, "AWS::SageMaker::Endpoint"):
        assert found[f"/aws/sagemaker/Endpoints/{endpoint['Properties']['EndpointName']}"] in endpoint["DependsOn"]


def needs(template: Template, name: str) -> set[str]:
    """Returns everything that a resource depends on: CloudFormation creates these first and deletes them last."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        resource = template.body["Resources"][waiting.pop()]
        depends = resource.get("DependsOn", [])
        direct = {depends} if isinstance(depends, str) else {*depends}
        direct |= references(resource.get("Properties", {})) & template.body["Resources"].keys()
        waiting += direct - found
        found |= direct
    return found


def references(value: Any) -> set[str]:
    if isinstance(value, list):
        return {name for one in value for name in references(one)}
    if not isinstance(value, dict):
        return set()
    if value.keys() & {"Ref", "Fn::GetAtt"}:
        return {target(value)}
    return {name for one in value.values() for name in references(one)}


def test_the_bucket_of_access_logs_is_emptied_after_the_others_are_deleted(template: Template) -> None:
    """Their deletion is logged: a bucket that is emptied first could have objects again when it is deleted."""
    buckets = template.of("AWS::S3::Bucket")
    (logs,) = [name for name, one in buckets.items() if "LoggingConfiguration" not in one]
    (emptying,) = [
        name for name, one in template.of("Custom::S3AutoDeleteObjects").items() if target(one["BucketName"]) == logs
    ]
    (policy,) = [name for name, one in template.of("AWS::S3::BucketPolicy").items() if target(one["Bucket"]) == logs]
    for name in buckets.keys() - {logs}:
        assert {emptying, policy, logs} <= needs(template, name)


def test_each_bucket_of_a_stage_without_keep_data_is_emptied_and_none_of_one_with_it(
    template: Template, prod: dict[str, Template]
) -> None:
    emptied = {target(one["BucketName"]) for one in template.of("Custom::S3AutoDeleteObjects").values()}
    assert emptied == template.of("AWS::S3::Bucket").keys()
    assert "AutoDeleteObjects" not in str(prod["Maskdrop"].body)


def test_s3_can_deliver_the_access_logs_of_the_buckets_of_the_stack(template: Template) -> None:
    buckets = template.of("AWS::S3::Bucket")
    destinations = {
        target(one["LoggingConfiguration"]["DestinationBucketName"])
        for one in buckets.values()
        if "LoggingConfiguration" in one
    }
    (policy,) = [one for one in template.of("AWS::S3::BucketPolicy").values() if target(one["Bucket"]) in destinations]
    (allowed,) = [
        one
        for one in policy["PolicyDocument"]["Statement"]
        if one["Principal"] == {"Service": "logging.s3.amazonaws.com"}
    ]
    assert allowed["Action"] == "s3:PutObject"
    assert allowed["Condition"]["StringEquals"] == {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}
    # CloudFormation names an unnamed bucket <stack>-<logical ID>-<random>, in lower case.
    assert text(allowed["Condition"]["ArnLike"]["aws:SourceArn"]).endswith(":s3:::maskdrop-dev-*")
