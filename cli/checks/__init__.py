"""Checks of an account and of a stage in it, for `maskdrop doctor`. A check reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from cli.checks import before, deployed, endpoints, options
from cli.checks.account import Account, Line, unreadable


@dataclass(frozen=True, slots=True)
class Check:
    """A check.

    name: name of the line if the check cannot be run; its own lines may have others.
    lines: yields the results.
    not_local: services that it needs and the local stack lacks; "": the local stack has them.
    after: whether it needs the deployed application.
    """

    name: str
    lines: Callable[[Account], Iterator[Line]]
    not_local: str = ""
    after: bool = False


ESSENTIAL = (Check("Region", before.region), Check("credentials", before.credentials))
"""Checks without which no other can be run."""

QUOTAS = "Service Quotas"

CHECKS = (
    Check("bootstrap", before.bootstrap),
    Check("instances", endpoints.instances, QUOTAS),
    Check("instance types", endpoints.instance_types, f"{QUOTAS} and no Price List"),
    Check("GPU mode", endpoints.gpu_mode, QUOTAS),
    Check("serverless memory", endpoints.serverless_memory, QUOTAS),
    Check("serverless concurrency", endpoints.serverless_concurrency, QUOTAS),
    Check("Lambda concurrency", before.lambda_concurrency, QUOTAS),
    Check("CodeBuild", before.code_build, f"{QUOTAS} and no image builds"),
    Check("Bedrock", before.bedrock_models),
    Check("options", options.options, "ACM, IAM policies and weights"),
    Check("mail", before.mail, "e-mail"),
    Check("leftovers", deployed.leftovers, "resource tags"),
    Check("stacks", deployed.stacks),
    Check("image", deployed.image, "images", after=True),
    Check("endpoints", deployed.endpoints, "SageMaker API", after=True),
    Check("queues", deployed.queues, after=True),
    Check("budget", deployed.budget, "budgets", after=True),
)
"""All other checks, in the order of their lines."""


def examine(account: Account) -> Iterator[Line]:
    """Runs the checks and yields their lines. A call that fails is a warning; the other checks continue."""
    for check in ESSENTIAL:
        lines = list(check.lines(account))
        yield from lines
        if any(line.level == "fails the deploy" for line in lines):
            return
    for check in CHECKS:
        if account.local and check.not_local:
            finding = f"Not checked here: the local stack has no {check.not_local}."
            yield Line(name=check.name, level="not checked", finding=finding)
            continue
        try:
            if not check.after or account.app_stack in account.stacks:
                yield from check.lines(account)
        except (ClientError, BotoCoreError) as error:
            yield unreadable(check.name, error)
