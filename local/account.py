"""boto clients of the user's AWS account."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import boto3
from botocore.config import Config

PRICE_LIST_REGION = "us-east-1"
"""Region of the Price List API, which has the prices of all Regions."""


def region_of_environment() -> str:
    """Returns the Region of AWS_REGION, AWS_DEFAULT_REGION or the profile, in the order of the CDK; "" without one.

    boto3 does not read AWS_REGION.
    """
    return os.environ.get("AWS_REGION") or boto3.session.Session().region_name or ""


def client_in(region: str, service: str) -> Any:
    """Creates a client of a service with the user's credentials. region: "": no Region is configured."""
    # boto3-stubs type boto3.client by literal service names only.
    create = cast(Callable[..., Any], boto3.client)
    return create(
        service,
        region_name=PRICE_LIST_REGION if service == "pricing" else region or None,
        config=Config(retries={"mode": "standard", "max_attempts": 8}),  # Service Quotas throttles at a few calls/s
    )
