"""What the emulator reads in a template and does not do, done after the deployment through AWS's own interfaces.

Each bridge has a test in tests/e2e that fails as soon as the emulator needs it no longer.
"""

from __future__ import annotations

import json
from typing import Any

from local.config import LocalConfig
from local.connect import client
from local.deploy import Deployed

Template = dict[str, Any]


def cross(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """Crosses every bridge. Doing it again changes nothing."""
    expire_records(config, template, deployed)
    expire_objects(config, template, deployed)
    leave_keys_to_the_authorizer(config, template, deployed)
    if config.strict:
        send_batches(config, template, deployed)


def expire_records(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """DynamoDB's time to live."""
    dynamodb = client(config, "dynamodb")
    for table, properties in _resources(template, deployed, "AWS::DynamoDB::Table"):
        if wanted := properties.get("TimeToLiveSpecification"):
            found = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
            if found["TimeToLiveStatus"] != "ENABLED":
                dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=wanted)


def expire_objects(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """S3's lifecycle rules."""
    s3 = client(config, "s3")
    for bucket, properties in _resources(template, deployed, "AWS::S3::Bucket"):
        if wanted := properties.get("LifecycleConfiguration"):
            rules = [_rule(rule) for rule in wanted["Rules"]]
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def leave_keys_to_the_authorizer(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """API Gateway's key source AUTHORIZER: the emulator looks for a key in X-Api-Key whatever the source. Nothing of a
    usage plan is counted here then; our own windows are."""
    apigateway = client(config, "apigateway")
    apis = _resources(template, deployed, "AWS::ApiGateway::RestApi")
    sources = {api: properties.get("ApiKeySourceType") for api, properties in apis}
    for _, method in _resources(template, deployed, "AWS::ApiGateway::Method"):
        api, resource = (deployed.ids.get(method[name].get("Ref")) for name in ("RestApiId", "ResourceId"))
        if method.get("ApiKeyRequired") and sources.get(api) == "AUTHORIZER":
            apigateway.update_method(
                restApiId=api,
                resourceId=resource,
                httpMethod=method["HttpMethod"],
                # Not "replace" by "false", which the emulator takes for a text that is not empty.
                patchOperations=[{"op": "remove", "path": "/apiKeyRequired"}],
            )


def send_batches(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """SQS's batches: who may send a message may send ten at once, but the emulator asks for a right to
    SendMessageBatch, which IAM does not know."""
    iam = client(config, "iam")
    for role, _ in _resources(template, deployed, "AWS::IAM::Role"):
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for statement in document["Statement"]:
                if statement["Action"] == "sqs:SendMessage":
                    statement["Action"] = ["sqs:SendMessage", "sqs:SendMessageBatch"]
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """CloudFormation's form of a lifecycle rule in the form of S3's interface."""
    out: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "Id" in rule:
        out["ID"] = rule["Id"]
    if "ExpirationInDays" in rule:
        out["Expiration"] = {"Days": rule["ExpirationInDays"]}
    if rule.get("ExpiredObjectDeleteMarker"):
        out["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if "NoncurrentVersionExpiration" in rule:
        out["NoncurrentVersionExpiration"] = rule["NoncurrentVersionExpiration"]
    if "AbortIncompleteMultipartUpload" in rule:
        out["AbortIncompleteMultipartUpload"] = rule["AbortIncompleteMultipartUpload"]
    if "Transitions" in rule:
        out["Transitions"] = [
            {"Days": one["TransitionInDays"], "StorageClass": one["StorageClass"]} for one in rule["Transitions"]
        ]
    return out


def _resources(template: Template, deployed: Deployed, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(physical id, properties) of each deployed resource of one type."""
    return [
        (deployed.ids[logical_id], resource.get("Properties", {}))
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == kind and logical_id in deployed.ids
    ]
