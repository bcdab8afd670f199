from __future__ import annotations

import json
import os
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from infra.image import MEDIA_TYPE
from infra.start_build import handler
from tests.infra.conftest import Template


class ResponseServer:
    """An HTTP server that receives the PUT request for CloudFormation."""

    def __init__(self) -> None:
        self.responses: list[dict[str, Any]] = []
        responses = self.responses

        class Put(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                responses.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Put)
        self.url = f"http://127.0.0.1:{self.server.server_port}/response"


class CodeBuild:
    def __init__(self, error: Exception | None = None) -> None:
        self.started: list[dict[str, Any]] = []
        self.error = error

    def start_build(self, **request: Any) -> None:
        if self.error:
            raise self.error
        self.started.append(request)


class ImageNotFoundException(Exception): ...


class Ecr:
    """A repository with these images. images: tag -> media type of the manifest."""

    class exceptions:  # noqa: N801  as in boto3
        ImageNotFoundException = ImageNotFoundException

    def __init__(self, images: dict[str, str] | None = None) -> None:
        self.images = images or {}

    def describe_images(self, *, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:  # noqa: N803
        assert repositoryName == "maskdrop-dev"
        tags = [image["imageTag"] for image in imageIds]
        if not set(tags) <= set(self.images):
            raise ImageNotFoundException
        return {"imageDetails": [{"imageManifestMediaType": self.images[tag]} for tag in tags]}


@pytest.fixture
def cloudformation() -> Any:
    server = ResponseServer()
    thread = Thread(target=server.server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.server.shutdown()
    server.server.server_close()
    thread.join()


def event(kind: str, cloudformation: ResponseServer) -> dict[str, Any]:
    return {
        "RequestType": kind,
        "ResponseURL": cloudformation.url,
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Image",
        "ResourceProperties": {
            "Project": "project",
            "Repository": "maskdrop-dev",
            "Tag": "0123",
            "Tags": ["0123", "0123-cpu"],
            "MediaType": MEDIA_TYPE,
        },
    }


def test_the_build_receives_the_response_url_and_the_ids_of_the_request(cloudformation: ResponseServer) -> None:
    codebuild = CodeBuild()
    handler(event("Create", cloudformation), None, codebuild, Ecr())
    (request,) = codebuild.started
    variables = {one["name"]: one["value"] for one in request["environmentVariablesOverride"]}
    assert request["projectName"] == "project"
    assert variables == {
        "RESPONSE_URL": cloudformation.url,
        "STACK_ID": "stack",
        "REQUEST_ID": "request",
        "LOGICAL_ID": "Image",
        "PHYSICAL_ID": "0123",
        "TAG": "0123",
    }
    assert cloudformation.responses == []


def test_a_build_that_does_not_start_is_reported_at_once(cloudformation: ResponseServer) -> None:
    handler(event("Create", cloudformation), None, CodeBuild(RuntimeError("too many builds")), Ecr())
    (response,) = cloudformation.responses
    assert response["Status"] == "FAILED"
    assert "too many builds" in response["Reason"]
    assert "docs/operations.md" in response["Reason"]
    assert response["RequestId"] == "request"


def test_a_rollback_to_images_that_exist_starts_no_build(cloudformation: ResponseServer) -> None:
    codebuild, ecr = CodeBuild(), Ecr({"0123": MEDIA_TYPE, "0123-cpu": MEDIA_TYPE})
    handler({**event("Update", cloudformation), "PhysicalResourceId": "4567"}, None, codebuild, ecr)
    assert codebuild.started == []
    (response,) = cloudformation.responses
    assert (response["Status"], response["PhysicalResourceId"]) == ("SUCCESS", "0123")


@pytest.mark.parametrize(
    "images",
    [
        {},
        {"0123-cpu": MEDIA_TYPE},
        {"0123": "application/vnd.oci.image.index.v1+json", "0123-cpu": MEDIA_TYPE},
    ],
    ids=["none", "an interrupted build", "a manifest that SageMaker refuses"],
)
def test_images_are_built_unless_all_exist_and_suit_sagemaker(
    cloudformation: ResponseServer, images: dict[str, str]
) -> None:
    codebuild = CodeBuild()
    handler(event("Update", cloudformation), None, codebuild, Ecr(images))
    assert len(codebuild.started) == 1
    assert cloudformation.responses == []


def test_deleting_the_stack_starts_no_build(cloudformation: ResponseServer) -> None:
    codebuild = CodeBuild()
    handler({**event("Delete", cloudformation), "PhysicalResourceId": "old"}, None, codebuild, Ecr())
    assert codebuild.started == []
    (response,) = cloudformation.responses
    assert (response["Status"], response["PhysicalResourceId"]) == ("SUCCESS", "old")


@pytest.mark.parametrize(("succeeding", "status"), [("1", "SUCCESS"), ("0", "FAILED")])
def test_a_build_reports_its_outcome_to_cloudformation(
    cloudformation: ResponseServer, stacks: dict[str, Template], succeeding: str, status: str
) -> None:
    if not (shutil.which("jq") and shutil.which("curl")):
        pytest.skip("The build script needs jq and curl, which the image of CodeBuild contains.")
    (project,) = stacks["MaskdropImage"].of("AWS::CodeBuild::Project").values()
    (script,) = json.loads(project["Source"]["BuildSpec"])["phases"]["post_build"]["commands"]
    codebuild = CodeBuild()
    handler(event("Create", cloudformation), None, codebuild, Ecr())
    variables = {one["name"]: one["value"] for one in codebuild.started[0]["environmentVariablesOverride"]}
    env = {
        **variables,
        "PATH": os.environ["PATH"],
        "CODEBUILD_BUILD_ID": "build:1",
        "CODEBUILD_BUILD_SUCCEEDING": succeeding,
    }
    subprocess.run(["bash", "-c", script], env=env, check=True)  # noqa: S603, S607  script of the template
    assert cloudformation.responses == [
        {
            "Status": status,
            "Reason": "See the log of build build:1",
            "PhysicalResourceId": "0123",
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Image",
        }
    ]
