"""Limits who may assume a role: a service acts for resources of this account alone (the "confused deputy" problem)."""

from __future__ import annotations

from typing import Any

import jsii
from aws_cdk import Aws, IAspect, Stack
from aws_cdk import aws_iam as iam
from constructs import IConstruct

LIMITED = (
    "codebuild.amazonaws.com",
    "ecs-tasks.amazonaws.com",
    "sagemaker.amazonaws.com",
    "vpc-flow-logs.amazonaws.com",
)
"""Services that name the account of the resource, in aws:SourceAccount, when they assume a role. Lambda and API Gateway
document no such key for the roles of functions and for the role that writes logs: with the condition they could not
assume them."""

SOURCE_ACCOUNT = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}


@jsii.implements(IAspect)
class LimitTrust:
    """Adds the condition to the trust policy of every role of LIMITED services."""

    def visit(self, node: IConstruct) -> None:
        if not isinstance(node, iam.CfnRole):
            return
        document: dict[str, Any] = Stack.of(node).resolve(node.assume_role_policy_document)
        for number, statement in enumerate(document["Statement"]):
            if statement.get("Principal", {}).get("Service") in LIMITED:
                node.add_property_override(f"AssumeRolePolicyDocument.Statement.{number}.Condition", SOURCE_ACCOUNT)
