"""Acknowledges findings of cdk-nag, each with its reason."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Acknowledges the finding `rule` in a construct and its children."""
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))


def acknowledge_wildcard(construct: IConstruct, resource: str, reason: str) -> None:
    """Acknowledges one resource that contains "*" in the policies of a construct. Others are still reported."""
    resource = _format_reference(cdk.Stack.of(construct).resolve(resource))
    acknowledge(construct, f"AwsSolutions-IAM5[Resource::{resource}]", reason)


def _format_reference(reference: Any) -> str:
    """Formats a CloudFormation reference as cdk-nag does: <LogicalId.Arn>/inbox/*."""
    match reference:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_format_reference(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Fn::ImportValue": name}:
            return str(name)
        case {"Ref": resource}:
            return f"<{resource}>"
        case _:
            return str(reference)
