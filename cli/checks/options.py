"""Checks of what the options of a stage name: weights, a certificate, a key, a policy. They exist before a deploy."""

from __future__ import annotations

from collections.abc import Iterator

from botocore.exceptions import ClientError

from cli.checks.account import Account, Line

MISSING = {"NoSuchBucket", "NotFoundException", "ResourceNotFoundException", "NoSuchEntity", "404"}
"""Error codes of a resource that does not exist."""


def options(account: Account) -> Iterator[Line]:
    """What the stage file names exists and can be used."""
    stage = account.stage
    for name, value, check in (
        ("weights", stage.weights, _weights),
        ("domain.certificate", stage.domain.certificate if stage.domain else "", _certificate),
        ("kms_key", stage.kms_key, _key),
        ("permissions_boundary", stage.permissions_boundary, _boundary),
    ):
        if not value:
            continue
        try:
            fault, remedy = check(account, value)
        except ClientError as error:
            if error.response["Error"]["Code"] not in MISSING:
                raise
            fault, remedy = "does not exist", f"create it, or correct {name} in {account.file}"
        if fault:
            yield Line(name=name, level="fails the deploy", finding=f"{value} {fault}.", remedy=remedy)
        else:
            yield Line(name=name, level="ok", finding=f"{value} exists.")


def _weights(account: Account, uri: str) -> tuple[str, str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    found = account.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]
    return ("", "") if found else ("contains no files", f"maskdrop models push --to {uri}")


def _certificate(account: Account, arn: str) -> tuple[str, str]:
    if (fault := _elsewhere(account, arn))[0]:
        return fault
    status = account.client("acm").describe_certificate(CertificateArn=arn)["Certificate"]["Status"]
    if status == "ISSUED":
        return "", ""
    return f"has the state {status}; it must be ISSUED", account.console("acm/home#/certificates/list")


def _key(account: Account, arn: str) -> tuple[str, str]:
    if (fault := _elsewhere(account, arn))[0]:
        return fault
    state = account.client("kms").describe_key(KeyId=arn)["KeyMetadata"]["KeyState"]
    return (
        ("", "") if state == "Enabled" else (f"has the state {state}; it must be Enabled", account.console("kms/home"))
    )


def _boundary(account: Account, name: str) -> tuple[str, str]:
    partition = account.identity["Arn"].split(":")[1]  # aws-us-gov in AWS GovCloud (US)
    account.client("iam").get_policy(PolicyArn=f"arn:{partition}:iam::{account.identity['Account']}:policy/{name}")
    return "", ""


def _elsewhere(account: Account, arn: str) -> tuple[str, str]:
    """Returns the fault and the remedy of a resource in another Region; twice "" for one in this Region."""
    region = arn.split(":")[3]
    if region == account.region:
        return "", ""
    return f"is in {region}; the stage is in {account.region}", f"use one in {account.region}, in {account.file}"
