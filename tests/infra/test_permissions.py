"""Replays the calls that the roles made on the local stack against the statements of every stage."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.infra.account.assembly import Assembly
from tests.infra.account.permissions import Call, Permission, denied, normalized, read, unused
from tests.infra.account.variants import VARIANTS

BY_LAMBDA = "Lambda makes the call for the function: logs, traces, polling of queues"
BY_SAGEMAKER = "SageMaker makes the call for the container: image, logs, metrics"
MISSING = "S3 checks it to return 404 for a missing object"
FAULT = "made only after a fault that the recording does not cause: a conflict, a refusal, a lost message"

NOT_CALLED = (
    (r".*", r"logs:(CreateLogStream|PutLogEvents|DescribeLogStreams)", BY_LAMBDA),
    (r".*", r"xray:.*", BY_LAMBDA),
    (r".*", r"s3:ListBucket", MISSING),
    (r"Maskdrop\..*", r"sqs:(ReceiveMessage|DeleteMessage|GetQueueAttributes|GetQueueUrl)", BY_LAMBDA),
    (r"Maskdrop\..*", r"sqs:ChangeMessageVisibility", BY_LAMBDA),
    (r"Maskdrop\.(Ingest|Record|Sweep|DeadLetters)Role", r"dynamodb:(GetItem|PutItem|UpdateItem|DeleteItem)", FAULT),
    (r"Maskdrop\.(Ingest|Sweep)Role", r"events:PutEvents", FAULT),
    (r"Maskdrop\.(Ingest|DeadLetters|Invoke|Edit|Sweep)Role", r"sqs:SendMessage", FAULT),
    (r"Maskdrop\.DeadLettersRole", r"s3:GetObject", FAULT),
    (r"Maskdrop\.WebhooksRole", r"dynamodb:(GetItem|PutItem|UpdateItem|DeleteItem)|sqs:SendMessage", FAULT),
    (r"MaskdropBulk\.Role", r"sns:Publish", FAULT),
    (r"MaskdropBulk\.Role", r"s3:GetObject", "a background image of a preset"),
    (r"MaskdropBulk\.Role", r"s3:PutObject", "SageMaker writes the error of a request that failed"),
    (r"MaskdropInteractive\.Role", r"s3:.*", "the model server of the local stack uses the role of bulk"),
    (r"Maskdrop(Bulk|Interactive)\.Role", r"ecr:.*|cloudwatch:PutMetricData", BY_SAGEMAKER),
    (r"Maskdrop(Bulk|Interactive)\.Role", r"kms:.*", "SNS and S3 make the call for the endpoint"),
    (r"MaskdropImage\..*", r".*", "the local stack builds no image"),
    (r"MaskdropBulk\.Role", r"cloudwatch:DescribeAlarms", "SageMaker makes the call during an update"),
    (r"Maskdrop\.CustomS3AutoDelete.*", r"s3:GetBucketTagging", "the local stack empties no bucket"),
)
"""(role, action, reason) as patterns: permissions that the recording does not use."""

ALL = {call for calls in read().values() for call in calls}
"""The calls of both stages of the local stack. They share most roles, and the recording of each is short."""


def stage_of(assembly: Assembly) -> str:
    """The stage of the local stack whose calls a variant must allow."""
    outputs = assembly.templates[assembly.stack("Maskdrop")]["Outputs"]
    return "local-cpu" if "BundlesQueueUrl" in outputs else "local"


def calls_rekognition(assembly: Assembly) -> bool:
    return any("MODEL_REKOGNITION" in json.dumps(model.properties) for model in assembly.of("AWS::SageMaker::Model"))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_call_is_allowed(variants: dict[str, Assembly], name: str) -> None:
    calls = read()[stage_of(variants[name])]
    assert calls
    if not calls_rekognition(variants[name]):
        calls = {call for call in calls if not call.action.startswith("rekognition:")}
    assert denied(variants[name], calls) == []


@pytest.mark.parametrize("name", ["dev", "gpu"])
def test_every_permission_is_used_or_has_a_reason(variants: dict[str, Assembly], name: str) -> None:
    found = unused(variants[name], ALL)
    without_reason = [
        one
        for one in found
        if not any(re.fullmatch(role, one.role) and re.fullmatch(action, one.action) for role, action, _ in NOT_CALLED)
    ]
    assert without_reason == []


def test_every_reason_is_needed(variants: dict[str, Assembly]) -> None:
    found = [one for name in ("dev", "gpu") for one in unused(variants[name], ALL)]
    for role, action, _ in NOT_CALLED:
        assert [one for one in found if re.fullmatch(role, one.role) and re.fullmatch(action, one.action)], (
            role + action
        )


@pytest.mark.parametrize("name", VARIANTS)
def test_an_endpoint_may_read_the_alarms_that_roll_its_update_back(variants: dict[str, Assembly], name: str) -> None:
    assembly = variants[name]
    allowed = json.dumps([one.properties["PolicyDocument"] for one in assembly.of("AWS::IAM::Policy")])
    alarms = {assembly.name(*one.node): one for one in assembly.of("AWS::CloudWatch::Alarm")}
    for endpoint in assembly.of("AWS::SageMaker::Endpoint"):
        rollback = endpoint.properties.get("DeploymentConfig", {}).get("AutoRollbackConfiguration", {})
        for one in rollback.get("Alarms", []):
            arn = f"arn:aws:cloudwatch:us-east-1:111122223333:alarm:{one['AlarmName']}"
            assert f'"Action": "cloudwatch:DescribeAlarms", "Effect": "Allow", "Resource": "{arn}"' in allowed
            assert one["AlarmName"] in alarms


def stage(*statements: dict[str, object]) -> Assembly:
    resources = {
        "ApiRole0A1B2C3D": {"Type": "AWS::IAM::Role", "Properties": {}},
        "Policy": {
            "Type": "AWS::IAM::Policy",
            "Properties": {"Roles": [{"Ref": "ApiRole0A1B2C3D"}], "PolicyDocument": {"Statement": [*statements]}},
        },
        "Photos0A1B2C3D": {"Type": "AWS::S3::Bucket"},
    }
    return Assembly({"Maskdrop-dev": {"Resources": resources}}, {"Maskdrop-dev": set()})


def allow(action: str, resource: object, **condition: object) -> dict[str, object]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **condition}


PHOTOS = {"Fn::Join": ["", [{"Fn::GetAtt": ["Photos0A1B2C3D", "Arn"]}, "/inbox/*"]]}
READ = Call("Maskdrop.ApiRole", "s3:GetObject", "arn:aws:s3:::{Maskdrop.Photos}/inbox/x")


def test_a_call_without_a_statement_is_denied() -> None:
    assert denied(stage(allow("s3:GetObject", PHOTOS)), [READ]) == []
    assert denied(stage(allow("s3:PutObject", PHOTOS)), [READ]) == [READ]
    other = Call(READ.role, READ.action, "arn:aws:s3:::{Maskdrop.Photos}/uploads/x")
    assert denied(stage(allow("s3:GetObject", PHOTOS)), [READ, other]) == [other]


def test_a_condition_on_partition_keys_limits_a_call() -> None:
    keys = {"Condition": {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": ["window"]}}}
    limited = stage(allow("dynamodb:GetItem", "*", **keys))
    window, key = (Call("Maskdrop.ApiRole", "dynamodb:GetItem", "table", (kind,)) for kind in ("window", "key"))
    assert denied(limited, [window, key]) == [key]


def test_a_permission_without_a_call_is_unused() -> None:
    found = unused(stage(allow("s3:GetObject", PHOTOS), allow("s3:DeleteObject", "*")), [READ])
    assert found == [Permission("Maskdrop.ApiRole", "s3:DeleteObject", "*")]


def test_recorded_calls_lose_generated_names() -> None:
    endpoint = "arn:aws:sagemaker:us-east-1:000000000000:endpoint/one"
    records: list[dict[str, Any]] = [
        {
            "key": "A", "role": "api-role", "action": "s3:GetObject",
            "resource": "arn:aws:s3:::photos-1/uploads/operator/0a1b2c3d4e/p.jpg",
        },
        {
            "key": "A", "role": "api-role", "action": "dynamodb:GetItem", "leading_keys": ["key", "0a1b2c3d4e"],
            "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/keys",
        },
        {"key": "A", "action": "sagemaker:InvokeEndpoint", "resource": endpoint},
        {"key": "of a caller without a role of the stack", "action": "sagemaker:InvokeEndpoint", "resource": endpoint},
    ]  # fmt: skip
    lines = [json.dumps(one) for one in records]
    physical = {"api-role": "Maskdrop.ApiRole", "photos-1": "Maskdrop.Photos", "keys": "Maskdrop.Keys"}
    assert sorted(normalized(lines, physical, ["key"])) == [
        Call(
            "Maskdrop.ApiRole",
            "dynamodb:GetItem",
            "arn:aws:dynamodb:{region}:{account}:table/{Maskdrop.Keys}",
            ("key",),
        ),
        Call("Maskdrop.ApiRole", "s3:GetObject", "arn:aws:s3:::{Maskdrop.Photos}/uploads/x/x/x"),
        Call("Maskdrop.ApiRole", "sagemaker:InvokeEndpoint", "arn:aws:sagemaker:{region}:{account}:endpoint/one"),
    ]
