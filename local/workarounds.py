"""Workarounds for template features that the emulator accepts and ignores, applied after deployment by AWS API calls.

Each workaround has a test in tests/e2e that fails as soon as the emulator no longer needs it.
"""

from __future__ import annotations

import json
from typing import Any

from local.config import LocalConfig
from local.connect import client
from local.deploy import Deployed

Template = dict[str, Any]


def apply(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """Applies every workaround. Idempotent."""
    set_time_to_live(config, template, deployed)
    set_lifecycle_rules(config, template, deployed)
    remove_api_key_requirement(config, template, deployed)
    if config.strict:
        allow_batches(config, template, deployed)


def set_time_to_live(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """Enables time to live on DynamoDB tables."""
    dynamodb = client(config, "dynamodb")
    for table, properties in _resources(template, deployed, "AWS::DynamoDB::Table"):
        if specification := properties.get("TimeToLiveSpecification"):
            current = dynamodb.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
            if current["TimeToLiveStatus"] != "ENABLED":
                dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=specification)


def set_lifecycle_rules(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """Sets the lifecycle rules of S3 buckets."""
    s3 = client(config, "s3")
    for bucket, properties in _resources(template, deployed, "AWS::S3::Bucket"):
        if configuration := properties.get("LifecycleConfiguration"):
            rules = [_rule(rule) for rule in configuration["Rules"]]
            s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def remove_api_key_requirement(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """Removes the API key requirement from methods whose key source is AUTHORIZER.

    The emulator reads the key from X-Api-Key for every key source. Without the requirement, usage plans do not count
    here; the rate-limit windows of the registry do.
    """
    apigateway = client(config, "apigateway")
    apis = _resources(template, deployed, "AWS::ApiGateway::RestApi")
    sources = {api: properties.get("ApiKeySourceType") for api, properties in apis}
    for _, method in _resources(template, deployed, "AWS::ApiGateway::Method"):
        api, resource = (deployed.ids.get(method[name].get("Ref")) for name in ("RestApiId", "ResourceId"))
        if api and method.get("ApiKeyRequired") and sources.get(api) == "AUTHORIZER":
            apigateway.update_method(
                restApiId=api,
                resourceId=resource,
                httpMethod=method["HttpMethod"],
                # Not "replace" with "false": the emulator treats every non-empty string as true.
                patchOperations=[{"op": "remove", "path": "/apiKeyRequired"}],
            )


def allow_batches(config: LocalConfig, template: Template, deployed: Deployed) -> None:
    """Allows sqs:SendMessageBatch wherever sqs:SendMessage is allowed.

    In AWS, sqs:SendMessage covers batches. The emulator checks the action SendMessageBatch, which IAM does not define.
    """
    iam = client(config, "iam")
    for role, _ in _resources(template, deployed, "AWS::IAM::Role"):
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for statement in document["Statement"]:
                if statement["Action"] == "sqs:SendMessage":
                    statement["Action"] = ["sqs:SendMessage", "sqs:SendMessageBatch"]
            iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(document))


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Converts a lifecycle rule from the CloudFormation form to the S3 API form."""
    converted: dict[str, Any] = {"Status": rule["Status"], "Filter": {"Prefix": rule.get("Prefix", "")}}
    if "Id" in rule:
        converted["ID"] = rule["Id"]
    if "ExpirationInDays" in rule:
        converted["Expiration"] = {"Days": rule["ExpirationInDays"]}
    if rule.get("ExpiredObjectDeleteMarker"):
        converted["Expiration"] = {"ExpiredObjectDeleteMarker": True}
    if "NoncurrentVersionExpiration" in rule:
        converted["NoncurrentVersionExpiration"] = rule["NoncurrentVersionExpiration"]
    if "AbortIncompleteMultipartUpload" in rule:
        converted["AbortIncompleteMultipartUpload"] = rule["AbortIncompleteMultipartUpload"]
    if "Transitions" in rule:
        converted["Transitions"] = [
            {"Days": item["TransitionInDays"], "StorageClass": item["StorageClass"]} for item in rule["Transitions"]
        ]
    return converted


def _resources(template: Template, deployed: Deployed, kind: str) -> list[tuple[str, dict[str, Any]]]:
    """Returns (physical ID, properties) of each deployed resource of one type."""
    return [
        (deployed.ids[logical_id], resource.get("Properties", {}))
        for logical_id, resource in template["Resources"].items()
        if resource["Type"] == kind and logical_id in deployed.ids
    ]
