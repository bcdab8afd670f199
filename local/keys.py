"""API keys of a deployment, in AWS or in the local stack: registry items and API Gateway keys on its usage plan."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra.stages import STAGE_TAG
from lambdas.adapters.registry import DynamoDBRegistry
from local import processes
from local.account import client_in, region_of_environment
from local.config import LocalConfig, LocalError, NotRunning
from local.connect import client
from maskdrop.access import CALLS_A_MINUTE, Key, Scope
from maskdrop.services import Registry
from standalone import keys


@dataclass(frozen=True, slots=True)
class Deployment:
    """The stores of the API keys of one deployment: its registry, and API Gateway with its usage plan.

    gateway: a client of API Gateway; None for `maskdrop serve`, whose keys are in its registry alone.
    stage: name of the stage, by which `maskdrop doctor` finds its keys after the stage was destroyed.
    """

    registry: Registry
    gateway: Any = None
    usage_plan: str = ""
    stage: str = ""

    @classmethod
    def from_stack(cls, stack: str, make_client: Callable[[str], Any]) -> Deployment:
        """Reads the outputs of a CloudFormation stack. make_client: returns the client of an AWS service."""
        return cls.from_outputs(outputs_of(stack, make_client), make_client)

    @classmethod
    def from_outputs(cls, outputs: dict[str, str], make_client: Callable[[str], Any]) -> Deployment:
        """outputs: outputs of the stack by name. make_client: returns the client of an AWS service."""
        registry = DynamoDBRegistry(make_client("dynamodb"), outputs["RegistryTable"])
        return cls(registry, make_client("apigateway"), outputs["UsagePlanId"], outputs["ApiStage"])


def create_key(
    target: Deployment, name: str, *, owner: str = "", scope: Scope | None = None, rate: int = CALLS_A_MINUTE
) -> tuple[str, Key]:
    """Creates an API key. Returns its text, which is not stored, and its stored record.

    scope: None: "all" for the first key of a deployment, "own" for later ones.
    rate: rate limit, in requests per minute.
    """
    make = partial(keys.create_key, target.registry, name, owner=owner, scope=scope, rate=rate)
    return make(make_id=partial(_gateway_key, target, name)) if target.gateway else make()


def _gateway_key(target: Deployment, name: str, value: str) -> str:
    """Creates the key of API Gateway on the usage plan and returns its ID. value: the digest of the key's text, which
    the authorizer returns; it does not authenticate a request."""
    key = target.gateway.create_api_key(name=name, value=value, enabled=True, tags={STAGE_TAG: target.stage})
    target.gateway.create_usage_plan_key(usagePlanId=target.usage_plan, keyId=key["id"], keyType="API_KEY")
    return str(key["id"])


def list_keys(target: Deployment) -> dict[str, Key]:
    """Returns the keys of a deployment by digest."""
    return keys.list_keys(target.registry)


def revoke_key(target: Deployment, key_id: str) -> None:
    """Deletes an API key. Raises UnknownKey when the key does not exist."""
    keys.revoke_key(target.registry, key_id)
    if target.gateway:
        target.gateway.delete_api_key(apiKey=key_id)


@contextmanager
def deployment(stage: str | None) -> Iterator[Deployment]:
    """Yields the deployment of a stage in the user's account, or of the running local stack when `stage` is None.

    Converts errors of AWS to LocalError. Raises LocalError when the local stack is not running.
    """
    with connection(stage) as (outputs, make_client):
        yield Deployment.from_outputs(outputs, make_client)


@contextmanager
def connection(stage: str | None) -> Iterator[tuple[dict[str, str], Callable[[str], Any]]]:
    """Yields the outputs of a stage's stack, and a function that returns the client of an AWS service.

    stage, errors: as for `deployment`.
    """
    if stage:
        stack = f"Maskdrop-{stage}"
        make_client: Callable[[str], Any] = partial(client_in, region_of_environment())
    else:
        config = LocalConfig.of_running_stack(os.environ)
        if processes.find("emulator", config.state) is None:
            raise NotRunning
        stack, make_client = config.app_stack, partial(client, config)
    try:
        yield outputs_of(stack, make_client), make_client
    except (BotoCoreError, ClientError) as error:
        check = f"maskdrop doctor --stage {stage}" if stage else "maskdrop doctor"
        raise LocalError(
            f"AWS request failed: {str(error).rstrip('.')}. Check the account and the stage: {check}"
        ) from error


def outputs_of(stack: str, make_client: Callable[[str], Any]) -> dict[str, str]:
    """Returns the outputs of a CloudFormation stack by name."""
    (description,) = make_client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in description["Outputs"]}
