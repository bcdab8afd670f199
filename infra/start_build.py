"""Starts the image build for a CloudFormation custom resource. The build responds to CloudFormation when it ends.

This file is the whole code of one function and is inlined in the template. It imports no module of this repository and
must stay below the 4,096 characters that CloudFormation accepts.
"""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import boto3


def handler(event: dict[str, Any], context: object, codebuild: Any = None, ecr: Any = None) -> None:  # noqa: ARG001
    """Handles a custom resource request with the properties Project, Repository, Tag, Tags and MediaType.

    Tags: every image that the build pushes. If all exist, it starts no build: a rollback must not depend on one.
    """
    if event["RequestType"] == "Delete":  # images are deleted with their repository
        respond(event, "SUCCESS", "No resource to delete.")
        return
    properties = event["ResourceProperties"]
    variables = {"RESPONSE_URL": event["ResponseURL"], "STACK_ID": event["StackId"], "REQUEST_ID": event["RequestId"]}
    variables |= {"LOGICAL_ID": event["LogicalResourceId"], "PHYSICAL_ID": properties["Tag"], "TAG": properties["Tag"]}
    try:
        if exist(ecr or boto3.client("ecr"), properties):
            respond(event, "SUCCESS", "The images exist.")
            return
        (codebuild or boto3.client("codebuild")).start_build(
            projectName=properties["Project"],
            environmentVariablesOverride=[{"name": name, "value": value} for name, value in variables.items()],
        )
    except Exception as error:  # noqa: BLE001  without a response, CloudFormation waits for an hour
        respond(event, "FAILED", f"The build did not start: {error} See docs/operations.md, 'Container images'.")


def exist(ecr: Any, properties: dict[str, Any]) -> bool:
    """Whether the repository contains all images, with manifests of the media type that SageMaker accepts."""
    tags = [{"imageTag": tag} for tag in properties["Tags"]]
    try:
        found = ecr.describe_images(repositoryName=properties["Repository"], imageIds=tags)["imageDetails"]
    except ecr.exceptions.ImageNotFoundException:
        return False
    return all(image["imageManifestMediaType"] == properties["MediaType"] for image in found)


def respond(event: dict[str, Any], status: str, reason: str) -> None:
    """Sends the result of the request to CloudFormation. `status`: SUCCESS or FAILED."""
    body = {name: event[name] for name in ("StackId", "RequestId", "LogicalResourceId")}
    body |= {"Status": status, "Reason": reason}
    deleted = event["RequestType"] == "Delete"
    body["PhysicalResourceId"] = event["PhysicalResourceId"] if deleted else event["ResourceProperties"]["Tag"]
    request = urllib.request.Request(event["ResponseURL"], json.dumps(body).encode(), method="PUT")  # noqa: S310
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310  a presigned URL of CloudFormation
