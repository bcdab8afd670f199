"""Findings of cdk-nag that we know of and accept, each with its reason."""

from __future__ import annotations

from typing import Any

import aws_cdk as cdk
from constructs import IConstruct


def acknowledge(construct: IConstruct, rule: str, reason: str) -> None:
    """Accepts the finding `rule` in a construct and all that it holds."""
    cdk.Validations.of(construct).acknowledge(cdk.Acknowledgment(id=rule, reason=reason))


def acknowledge_wildcard(construct: IConstruct, resource: str, reason: str) -> None:
    """Accepts one resource with a "*" in the policies of a construct; any other is still found."""
    resource = _flat(cdk.Stack.of(construct).resolve(resource))
    acknowledge(construct, f"AwsSolutions-IAM5[Resource::{resource}]", reason)


def _flat(reference: Any) -> str:
    """A CloudFormation reference as cdk-nag writes it: <LogicalId.Arn>/inbox/*."""
    match reference:
        case {"Fn::Join": [separator, parts]}:
            return str(separator).join(_flat(part) for part in parts)
        case {"Fn::GetAtt": [resource, attribute]}:
            return f"<{resource}.{attribute}>"
        case {"Ref": resource}:
            return f"<{resource}>"
        case _:
            return str(reference)
