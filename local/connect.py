"""Clients of the emulated AWS."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials

from local.config import KEY_ID, REGION, SECRET, LocalConfig, LocalError

Role = Callable[[], str | None]
"""Says the ARN of a role; None while it is not there yet."""


def client(config: LocalConfig, service: str, *, role: Role | None = None) -> Any:
    """A client of the emulator, and of nothing else: profiles, proxies and files of the user's own AWS are not read.

    It signs with version 4: the emulator does not check presigned addresses of version 2, boto3's default for them.
    role: acts under it, from the first call on, and renews its keys; without it, as the owner of the account.
    """
    unset = (None, None, None, None)
    nowhere = (None, None, os.devnull, None)
    session = botocore.session.Session(
        session_vars={"profile": unset, "config_file": nowhere, "credentials_file": nowhere, "ca_bundle": unset}
    )
    if role is None:
        session.set_credentials(KEY_ID, SECRET)
    else:
        session.register_component("credential_provider", CredentialResolver([_AssumedRole(config, role)]))
    return session.create_client(
        service,
        region_name=REGION,
        endpoint_url=config.endpoint_url,
        verify=str(config.ca_bundle) if config.ca_bundle else None,
        config=Config(
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path"},
            proxies={},
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
        ),
    )


def assume(config: LocalConfig, role_arn: str) -> dict[str, str]:
    """Keys of a role for an hour, under botocore's names for them."""
    sts = client(config, "sts")
    keys = sts.assume_role(RoleArn=role_arn, RoleSessionName="SageMaker")["Credentials"]
    return {
        "access_key": keys["AccessKeyId"],
        "secret_key": keys["SecretAccessKey"],
        "token": keys["SessionToken"],
        "expiry_time": keys["Expiration"].isoformat(),
    }


def trust(ca_bundle: Path | None) -> ssl.SSLContext | bool:
    """What httpx2 calls `verify`."""
    return ssl.create_default_context(cafile=str(ca_bundle)) if ca_bundle else True


class _AssumedRole(CredentialProvider):
    METHOD = "assume-role"

    def __init__(self, config: LocalConfig, role: Role) -> None:
        super().__init__()
        self._config, self._role = config, role

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._refresh, self.METHOD)

    def _refresh(self) -> dict[str, str]:
        role = self._role()
        if role is None:
            raise LocalError("The role to act under is not deployed.")
        return assume(self._config, role)
