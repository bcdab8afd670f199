"""Deploys a synthesized stack into the emulator, as `cdk deploy` does into an account."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from local.config import REGION, LocalConfig, LocalError
from local.connect import client

ACCOUNT = "000000000000"
BOOTSTRAP_VERSION = "30"
"""Version of the CDK bootstrap stack; the template requires at least 6."""

TIMEOUT_S = 180.0
"""Timeout of a deployment, in seconds."""

ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time stamp that a zip file can store."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployed stack: its outputs by name, and the physical IDs by logical ID."""

    outputs: dict[str, str]
    ids: dict[str, str]


def deploy(config: LocalConfig, stack: str) -> Deployed:
    """Uploads the assets of `stack`, creates or updates it and waits until it is complete. Skips an unchanged stack.

    Raises LocalError with CloudFormation's reasons when the deployment fails or takes longer than TIMEOUT_S seconds.
    """
    cloudformation = client(config, "cloudformation")
    client(config, "ssm").put_parameter(
        Name="/cdk-bootstrap/hnb659fds/version", Value=BOOTSTRAP_VERSION, Type="String", Overwrite=True
    )
    _upload_assets(config, stack)
    template = (config.cdk_out / f"{stack}.template.json").read_bytes()
    bucket, key = f"cdk-local-templates-{ACCOUNT}", f"{hashlib.sha256(template).hexdigest()}.json"
    s3 = client(config, "s3")
    s3.create_bucket(Bucket=bucket)
    # By URL: a template in the request body may have at most 51,200 bytes.
    s3.put_object(Bucket=bucket, Key=key, Body=template)
    request = {
        "StackName": stack,
        "TemplateURL": f"{config.endpoint_url}/{bucket}/{key}",
        "Capabilities": ["CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    }
    if _describe(cloudformation, stack) is None:
        cloudformation.create_stack(**request)
    else:
        try:
            cloudformation.update_stack(**request)
        except ClientError as error:
            if "No updates are to be performed" not in str(error):
                raise LocalError(f"CloudFormation rejected the update of {stack}: {error}") from error
    return _wait(cloudformation, stack)


def _upload_assets(config: LocalConfig, stack: str) -> None:
    manifest = json.loads((config.cdk_out / f"{stack}.assets.json").read_text())
    s3 = client(config, "s3")
    for file in manifest.get("files", {}).values():
        source = config.cdk_out / file["source"]["path"]
        body = zip_folder(source) if file["source"]["packaging"] == "zip" else source.read_bytes()
        for destination in file["destinations"].values():
            bucket = destination["bucketName"].replace("${AWS::AccountId}", ACCOUNT).replace("${AWS::Region}", REGION)
            s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket=bucket, Key=destination["objectKey"], Body=body)


def zip_folder(folder: Path) -> bytes:
    """Returns a folder as a zip file. Its bytes depend only on file names and contents, not on times or owners."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), ZIP_EPOCH)
            entry.external_attr = 0o755 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def _describe(cloudformation: Any, stack: str) -> dict[str, Any] | None:
    """Returns CloudFormation's description of the stack; None if the stack does not exist."""
    try:
        description: dict[str, Any] = cloudformation.describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return description


def _wait(cloudformation: Any, stack: str) -> Deployed:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        description = _describe(cloudformation, stack) or {"StackStatus": "CREATE_FAILED"}
        status = description["StackStatus"]
        if status in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
            resources = cloudformation.describe_stack_resources(StackName=stack)["StackResources"]
            return Deployed(
                outputs={output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])},
                ids={item["LogicalResourceId"]: item["PhysicalResourceId"] for item in resources},
            )
        if not status.endswith("_IN_PROGRESS"):
            raise LocalError(f"Deployment of {stack} failed with status {status}:\n{_reasons(cloudformation, stack)}")
        time.sleep(0.1)
    raise LocalError(f"Deployment of {stack} took longer than {TIMEOUT_S:.0f} s.\n{_reasons(cloudformation, stack)}")


def _reasons(cloudformation: Any, stack: str) -> str:
    """Returns the reasons of the failed resource events, oldest first, one per line."""
    pages = cloudformation.get_paginator("describe_stack_events").paginate(StackName=stack)
    events = [event for page in pages for event in page["StackEvents"]]
    return "\n".join(
        f"  {event['LogicalResourceId']} ({event['ResourceType']}): {event.get('ResourceStatusReason', 'no reason')}"
        for event in reversed(events)
        if event["ResourceStatus"].endswith("_FAILED")
    )
