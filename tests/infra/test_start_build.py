from __future__ import annotations

import json
import os
import shutil
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from infra.start_build import handler
from tests.infra.conftest import Template


class Mailbox:
    """Takes the PUT by which CloudFormation is answered."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        answers = self.answers

        class Put(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Put)
        self.url = f"http://127.0.0.1:{self.server.server_port}/answer"


class CodeBuild:
    def __init__(self, error: Exception | None = None) -> None:
        self.started: list[dict[str, Any]] = []
        self.error = error

    def start_build(self, **request: Any) -> None:
        if self.error:
            raise self.error
        self.started.append(request)


@pytest.fixture
def mailbox() -> Any:
    box = Mailbox()
    thread = Thread(target=box.server.serve_forever, daemon=True)
    thread.start()
    yield box
    box.server.shutdown()
    box.server.server_close()
    thread.join()


def event(kind: str, mailbox: Mailbox) -> dict[str, Any]:
    return {
        "RequestType": kind,
        "ResponseURL": mailbox.url,
        "StackId": "stack",
        "RequestId": "request",
        "LogicalResourceId": "Image",
        "ResourceProperties": {"Project": "project", "Tag": "0123"},
    }


def test_a_build_is_started_that_knows_whom_to_answer(mailbox: Mailbox) -> None:
    codebuild = CodeBuild()
    handler(event("Create", mailbox), None, codebuild)
    (request,) = codebuild.started
    told = {one["name"]: one["value"] for one in request["environmentVariablesOverride"]}
    assert request["projectName"] == "project"
    assert told == {
        "RESPONSE_URL": mailbox.url,
        "STACK_ID": "stack",
        "REQUEST_ID": "request",
        "LOGICAL_ID": "Image",
        "PHYSICAL_ID": "0123",
        "TAG": "0123",
    }
    assert mailbox.answers == []


def test_a_build_that_does_not_start_is_told_at_once(mailbox: Mailbox) -> None:
    handler(event("Create", mailbox), None, CodeBuild(RuntimeError("too many builds")))
    (answer,) = mailbox.answers
    assert answer["Status"] == "FAILED"
    assert "too many builds" in answer["Reason"]
    assert answer["RequestId"] == "request"


def test_deleting_the_stack_starts_no_build(mailbox: Mailbox) -> None:
    codebuild = CodeBuild()
    handler({**event("Delete", mailbox), "PhysicalResourceId": "old"}, None, codebuild)
    assert codebuild.started == []
    (answer,) = mailbox.answers
    assert (answer["Status"], answer["PhysicalResourceId"]) == ("SUCCESS", "old")


@pytest.mark.parametrize(("succeeding", "status"), [("1", "SUCCESS"), ("0", "FAILED")])
def test_a_build_tells_cloudformation_how_it_ended(
    mailbox: Mailbox, stacks: dict[str, Template], succeeding: str, status: str
) -> None:
    if not (shutil.which("jq") and shutil.which("curl")):
        pytest.skip("The script of the build needs jq and curl, which CodeBuild's image has.")
    (project,) = stacks["MaskdropImage"].of("AWS::CodeBuild::Project").values()
    (script,) = json.loads(project["Source"]["BuildSpec"])["phases"]["post_build"]["commands"]
    codebuild = CodeBuild()
    handler(event("Create", mailbox), None, codebuild)
    told = {one["name"]: one["value"] for one in codebuild.started[0]["environmentVariablesOverride"]}
    env = {
        **told,
        "PATH": os.environ["PATH"],
        "CODEBUILD_BUILD_ID": "build:1",
        "CODEBUILD_BUILD_SUCCEEDING": succeeding,
    }
    subprocess.run(["bash", "-c", script], env=env, check=True)  # noqa: S603, S607  the script of our own template
    assert mailbox.answers == [
        {
            "Status": status,
            "Reason": "See the log of build build:1",
            "PhysicalResourceId": "0123",
            "StackId": "stack",
            "RequestId": "request",
            "LogicalResourceId": "Image",
        }
    ]
