"""What a check reads, an account or the local stack, and what it returns: lines with a level and a remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

from botocore.exceptions import BotoCoreError, ClientError

from infra.stages import Stage
from local.account import client_in, region_of_environment

Level = Literal["ok", "warning", "fails the deploy", "not checked"]
"""Level of a line:

ok                 nothing to do.
warning            the deploy succeeds; a part works less well, or its state could not be read.
fails the deploy   the next `cdk deploy` fails, or what it deployed cannot work.
not checked        the local stack lacks the service, or the stage is not deployed.
"""

CDK = "npx aws-cdk@2.1148.1"
"""The CDK command of docs/operations.md."""

NETWORK = "MaskdropNetwork"
STACKS = ("MaskdropImage", NETWORK, "Maskdrop", "MaskdropBulk", "MaskdropInteractive", "MaskdropAccount")
"""Prefixes of the names of a stage's stacks, in the order in which they are deployed. NETWORK: only with `vpc`."""

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation"}
"""Error codes of a missing IAM permission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A result of a check.

    finding: the state, in one or two sentences.
    remedy: the command, the console page or the setting that changes the state, one a line; "": nothing to do.
    """

    name: str
    level: Level
    finding: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A quota of Service Quotas. value: the applied value; the default value if none is applied."""

    service: str
    code: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint of the Region.

    instances: current number of instances by instance type.
    concurrency, memory_mb: sum of the concurrency and the largest memory of its serverless variants; 0 without any.
    """

    name: str
    instances: Mapping[str, int]
    concurrency: int
    memory_mb: int


@dataclass(frozen=True)
class Account:
    """An account in one Region, or the local stack, seen by the checks of a stage. Reads only, each thing once.

    make_client: returns a boto3 client of a service by its name.
    local: whether this is the local stack.
    """

    stage: Stage
    region: str
    make_client: Callable[[str], Any]
    local: bool = False
    _clients: dict[str, Any] = field(default_factory=dict, repr=False)
    _quotas: dict[str, dict[str, Quota]] = field(default_factory=dict, repr=False)

    @classmethod
    def in_aws(cls, stage: Stage) -> Account:
        """The account of the current credentials. The Region is `region_of_environment`."""
        region = region_of_environment()
        return cls(stage, region, partial(client_in, region))

    def client(self, service: str) -> Any:
        """Returns the client of a service. Creates it at the first call."""
        if service not in self._clients:
            self._clients[service] = self.make_client(service)
        return self._clients[service]

    def pages(self, service: str, operation: str, key: str, **request: Any) -> Iterator[Any]:
        """Yields the items under `key` of all pages of an operation."""
        for page in self.client(service).get_paginator(operation).paginate(**request):
            yield from page.get(key, [])

    @cached_property
    def identity(self) -> dict[str, str]:
        """Account and ARN of the caller."""
        identity: dict[str, str] = self.client("sts").get_caller_identity()
        return identity

    @cached_property
    def stacks(self) -> dict[str, dict[str, Any]]:
        """The stacks of the stage that exist, by name."""
        found = {}
        for prefix in STACKS:
            name = f"{prefix}-{self.stage.name}"
            try:
                (found[name],) = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
            except ClientError as error:
                if "does not exist" not in str(error):
                    raise
        return found

    @property
    def app_stack(self) -> str:
        return f"Maskdrop-{self.stage.name}"

    def resources(self, stack: str, kind: str) -> dict[str, str]:
        """Returns the physical ID by logical ID of the resources of one type; none if the stack does not exist."""
        if stack not in self.stacks:
            return {}
        return {
            one["LogicalResourceId"]: one["PhysicalResourceId"]
            for one in self.pages("cloudformation", "list_stack_resources", "StackResourceSummaries", StackName=stack)
            if one["ResourceType"] == kind and one.get("PhysicalResourceId")
        }

    @cached_property
    def endpoints(self) -> list[Endpoint]:
        """All SageMaker endpoints of the Region, of every stage and application."""
        names = [one["EndpointName"] for one in self.pages("sagemaker", "list_endpoints", "Endpoints")]
        return [self._endpoint(name) for name in names]

    def _endpoint(self, name: str) -> Endpoint:
        client = self.client("sagemaker")
        endpoint = client.describe_endpoint(EndpointName=name)
        config = client.describe_endpoint_config(EndpointConfigName=endpoint["EndpointConfigName"])
        running = endpoint.get("ProductionVariants", [])
        counts = {one["VariantName"]: one.get("CurrentInstanceCount", 0) for one in running}
        instances: dict[str, int] = {}
        for variant in config["ProductionVariants"]:
            if kind := variant.get("InstanceType"):
                instances[kind] = instances.get(kind, 0) + counts.get(variant["VariantName"], 0)
        serverless = [one["ServerlessConfig"] for one in config["ProductionVariants"] if "ServerlessConfig" in one]
        return Endpoint(
            name=name,
            instances=instances,
            concurrency=sum(one["MaxConcurrency"] for one in serverless),
            memory_mb=max((one["MemorySizeInMB"] for one in serverless), default=0),
        )

    def quota(self, service: str, name: str) -> Quota | None:
        """Returns a quota by its name in Service Quotas; None if Service Quotas does not list it in this Region.

        Quota codes are read by name, because AWS documents names only. Service Quotas lists a default value for every
        quota, and an applied value for some.
        """
        if service not in self._quotas:
            listed = self.pages("service-quotas", "list_aws_default_service_quotas", "Quotas", ServiceCode=service)
            self._quotas[service] = {
                one["QuotaName"]: Quota(service=service, code=one["QuotaCode"], value=one["Value"]) for one in listed
            }
        default = self._quotas[service].get(name)
        if default is None:
            return None
        try:
            applied = self.client("service-quotas").get_service_quota(ServiceCode=service, QuotaCode=default.code)
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchResourceException":
                raise
            return default
        return Quota(service=service, code=default.code, value=applied["Quota"]["Value"])

    def increase(self, quota: Quota, value: float) -> str:
        """Returns the command that requests a higher quota."""
        return (
            f"aws service-quotas request-service-quota-increase --region {self.region} --service-code {quota.service} "
            f"--quota-code {quota.code} --desired-value {value:g}"
        )

    def console(self, path: str) -> str:
        """Returns the URL of a page of the AWS console in this Region."""
        return f"https://{self.region}.console.aws.amazon.com/{path}"

    @property
    def deploy(self) -> str:
        """The command that deploys the stage."""
        return f"{CDK} deploy --all --context stage={self.stage.name}"

    @property
    def file(self) -> str:
        """Path of the stage file."""
        return f"stages/{self.stage.name}.toml"


def unreadable(name: str, error: ClientError | BotoCoreError) -> Line:
    """Returns the warning of a check whose call failed. It names a missing permission."""
    if not isinstance(error, ClientError):
        return Line(name=name, level="warning", finding=f"Not readable: {error}")
    details = error.response.get("Error", {})
    message = details.get("Message", "")
    if details.get("Code") in DENIED:
        named = re.search(r"perform:? ([\w-]+:\w+)", message)
        permission = named[1] if named else f"of the operation {error.operation_name}"
        return Line(
            name=name,
            level="warning",
            finding=f"Not readable: the permission {permission} is missing.",
            remedy=f"Allow {permission} for these credentials, or use others (export AWS_PROFILE=…).",
        )
    finding = f"Not readable: {error.operation_name} returned {details.get('Code')}: {message}"
    return Line(name=name, level="warning", finding=finding)
