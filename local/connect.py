"""Clients of the emulated AWS."""

from __future__ import annotations

import os
from typing import Any

import botocore.session
from botocore.config import Config

from local.config import KEY_ID, REGION, SECRET, LocalConfig


def client(config: LocalConfig, service: str) -> Any:
    """A client of the emulator, and of nothing else: profiles, proxies and files of the user's own AWS are not read.

    It signs with version 4: the emulator does not check presigned addresses of version 2, boto3's default for them.
    """
    unset = (None, None, None, None)
    nowhere = (None, None, os.devnull, None)
    session = botocore.session.Session(
        session_vars={"profile": unset, "config_file": nowhere, "credentials_file": nowhere, "ca_bundle": unset}
    )
    return session.create_client(
        service,
        region_name=REGION,
        endpoint_url=config.endpoint_url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
        config=Config(
            signature_version="s3v4" if service == "s3" else None,
            s3={"addressing_style": "path"},
            proxies={},
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=5,
            read_timeout=60,
        ),
    )
