"""The API keys of a deployment, in AWS or on this machine: in its registry and on its usage plan of API Gateway."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from lambdas.adapters.registry import DynamoDBRegistry
from local import processes
from local.config import APP_STACK, LocalConfig, LocalError
from local.connect import client
from maskdrop.access import CALLS_A_MINUTE, Key, Scope, digest
from maskdrop.services import Registry

SECRET_BYTES = 32
"""256 random bits, for a key and for its webhook secret."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where the keys of one deployment are: their items in its registry, and their API Gateway keys on its usage
    plan."""

    registry: Registry
    gateway: Any  # a client of API Gateway
    usage_plan: str

    @classmethod
    def found(cls, stack: str, connected: Callable[[str], Any]) -> Deployment:
        """By the name of its stack. connected: makes a client of a service."""
        (described,) = connected("cloudformation").describe_stacks(StackName=stack)["Stacks"]
        return cls.of({one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}, connected)

    @classmethod
    def of(cls, outputs: dict[str, str], connected: Callable[[str], Any]) -> Deployment:
        """outputs: the stack's."""
        registry = DynamoDBRegistry(connected("dynamodb"), outputs["RegistryTable"])
        return cls(registry, connected("apigateway"), outputs["UsagePlanId"])


def create_key(
    target: Deployment, name: str, *, owner: str = "", scope: Scope | None = None, rate: int = CALLS_A_MINUTE
) -> tuple[str, Key]:
    """A new key: its text, which is kept nowhere, and what is kept. The first key of a deployment sees all jobs unless
    `scope` says otherwise."""
    text = f"maskdrop_{secrets.token_urlsafe(SECRET_BYTES)}"
    # API Gateway, too, knows but the digest: the authorizer names the key by it, and nobody can come in with it.
    made = target.gateway.create_api_key(name=name, value=digest(text), enabled=True)
    target.gateway.create_usage_plan_key(usagePlanId=target.usage_plan, keyId=made["id"], keyType="API_KEY")
    key = Key(
        id=made["id"],
        name=name,
        owner=owner or made["id"],
        scope=scope or ("own" if known(target) else "all"),
        rate=rate,
        created_at=datetime.now(UTC),
        webhook_secret=f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}",
    )
    target.registry.put("key", digest(text), key.to_json())
    return text, key


def known(target: Deployment) -> dict[str, Key]:
    """digest -> key."""
    return {name: Key.from_json(value) for name, value in target.registry.list("key").items()}


def revoke_key(target: Deployment, key_id: str) -> None:
    """Raises LocalError when there is no such key."""
    found = [name for name, key in known(target).items() if key.id == key_id]
    if not found:
        raise LocalError(f"Key {key_id!r} does not exist; list keys with `maskdrop keys list`.")
    for name in found:
        target.registry.delete("key", name)
    target.gateway.delete_api_key(apiKey=key_id)


@contextmanager
def deployment(stage: str | None) -> Iterator[Deployment]:
    """The deployment of a stage in the user's account, or the one that is up on this machine. AWS's errors become
    ours."""
    if stage:
        stack, connected = f"Maskdrop-{stage}", boto3.client
    else:
        config = LocalConfig.from_env(os.environ)
        if processes.find("emulator", config.state) is None:
            raise LocalError(
                "The local stack is not running. Start it with `make up`, or name a stage in AWS with --stage."
            )
        stack, connected = APP_STACK, partial(client, config)
    try:
        yield Deployment.found(stack, connected)
    except (BotoCoreError, ClientError) as error:
        raise LocalError(f"AWS request failed: {error}") from error
