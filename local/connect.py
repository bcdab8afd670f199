"""boto clients of the AWS emulator."""

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

RoleArn = Callable[[], str | None]
"""Returns the ARN of a role; None before the role is deployed."""


def client(config: LocalConfig, service: str, *, role: RoleArn | None = None) -> Any:
    """Creates a client that only reaches the emulator: it ignores the user's AWS profiles, proxies and files.

    It signs with Signature Version 4: the emulator does not verify presigned URLs of version 2, boto3's default.
    role: the role to assume at the first call; its credentials are renewed. None: the root user of the account.
    """
    unset = (None, None, None, None)
    no_file = (None, None, os.devnull, None)
    session = botocore.session.Session(
        session_vars={"profile": unset, "config_file": no_file, "credentials_file": no_file, "ca_bundle": unset}
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


def assume_role(config: LocalConfig, role_arn: str) -> dict[str, str]:
    """Returns credentials of a role, valid for one hour, under the names that botocore uses."""
    sts = client(config, "sts")
    keys = sts.assume_role(RoleArn=role_arn, RoleSessionName="SageMaker")["Credentials"]
    return {
        "access_key": keys["AccessKeyId"],
        "secret_key": keys["SecretAccessKey"],
        "token": keys["SessionToken"],
        "expiry_time": keys["Expiration"].isoformat(),
    }


def tls_verify(ca_bundle: Path | None) -> ssl.SSLContext | bool:
    """Returns the `verify` argument of httpx2: a TLS context for `ca_bundle`, or True without one."""
    return ssl.create_default_context(cafile=str(ca_bundle)) if ca_bundle else True


class _AssumedRole(CredentialProvider):
    METHOD = "assume-role"

    def __init__(self, config: LocalConfig, role: RoleArn) -> None:
        super().__init__()
        self._config, self._role = config, role

    def load(self) -> DeferredRefreshableCredentials:
        return DeferredRefreshableCredentials(self._refresh, self.METHOD)

    def _refresh(self) -> dict[str, str]:
        role = self._role()
        if role is None:
            raise LocalError("The role to assume is not deployed. Run `make up` again.")
        return assume_role(self._config, role)
