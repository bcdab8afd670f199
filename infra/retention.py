"""How long logs and data are kept."""

from __future__ import annotations

from typing import cast

from aws_cdk import RemovalPolicy
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.stages import Stage


def log_group(scope: Construct, construct_id: str, *, stage: Stage, name: str) -> logs.LogGroup:
    """Creates a log group that keeps its events for `stage.keep_logs_days` and is deleted with the stack."""
    group = logs.LogGroup(scope, construct_id, log_group_name=name, removal_policy=RemovalPolicy.DESTROY)
    cast(logs.CfnLogGroup, group.node.default_child).retention_in_days = stage.keep_logs_days
    return group


def data_policy(stage: Stage) -> RemovalPolicy:
    """Whether buckets and tables outlive their stack. A failed creation always deletes them, so that nothing is left
    behind which the next deployment does not know."""
    return RemovalPolicy.RETAIN_ON_UPDATE_OR_DELETE if stage.keep_data else RemovalPolicy.DESTROY
