"""Starts the build of an image when CloudFormation asks for it. The build itself answers CloudFormation when it ends.

This file is the whole code of one function, written into the template: it imports nothing of ours and stays below the
4,096 characters that CloudFormation takes.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import boto3


def handler(event: dict[str, Any], context: object, codebuild: Any = None) -> None:  # noqa: ARG001  Lambda passes two
    """`event`: a request of a custom resource with the properties Project and Tag."""
    if event["RequestType"] == "Delete":  # images go with their repository
        answer(event, "SUCCESS", "nothing to undo")
        return
    properties = event["ResourceProperties"]
    told = {"RESPONSE_URL": event["ResponseURL"], "STACK_ID": event["StackId"], "REQUEST_ID": event["RequestId"]}
    told |= {"LOGICAL_ID": event["LogicalResourceId"], "PHYSICAL_ID": properties["Tag"], "TAG": properties["Tag"]}
    try:
        (codebuild or boto3.client("codebuild")).start_build(
            projectName=properties["Project"],
            environmentVariablesOverride=[{"name": name, "value": value} for name, value in told.items()],
        )
    except Exception as error:  # noqa: BLE001  the rim: unanswered, CloudFormation would wait for an hour
        answer(event, "FAILED", f"The build did not start: {error}")


def answer(event: dict[str, Any], status: str, reason: str) -> None:
    body = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    body |= {"Status": status, "Reason": reason}
    body["PhysicalResourceId"] = event.get("PhysicalResourceId") or event["ResourceProperties"]["Tag"]
    request = urllib.request.Request(event["ResponseURL"], json.dumps(body).encode(), method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  an address that CloudFormation gave
