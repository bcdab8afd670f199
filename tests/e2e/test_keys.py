"""Tests API keys on the stack: API Gateway, authorizer and registry."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local import keys
from local.config import HOST, REGION, ROOT
from local.connect import client
from maskdrop.access import Key, digest
from maskdrop.job import Job, dropped
from tests.e2e.conftest import Running
from tests.fakes import a_source


@pytest.fixture(scope="module")
def deployment(running: Running) -> keys.Deployment:
    return keys.Deployment.from_stack(running.config.app_stack, partial(client, running.config))


@pytest.fixture
def shop(deployment: keys.Deployment) -> Iterator[tuple[str, Key]]:
    """A key with its own owner: its text, and its record."""
    text, key = keys.create_key(deployment, "a shop", rate=5)
    yield text, key
    if digest(text) in keys.list_keys(deployment):
        keys.revoke_key(deployment, key.id)


def a_job(running: Running, owner: str) -> Job:
    """Creates a job of an owner."""
    now = datetime.now(UTC)
    job = replace(dropped(a_source(f"uploads/{uuid.uuid4().hex}.jpg"), now), owner=owner)
    running.jobs.claim(job)
    return job


def test_the_first_key_has_scope_all_and_later_keys_have_scope_own(
    deployment: keys.Deployment, shop: tuple[str, Key]
) -> None:
    first = min(keys.list_keys(deployment).values(), key=lambda key: key.created_at)
    assert (first.scope, shop[1].scope) == ("all", "own")
    assert shop[1].owner == shop[1].id


@pytest.mark.parametrize("header", ["X-Api-Key", "x-api-key", "X-API-KEY", "Authorization"])
def test_a_key_is_accepted_in_either_header(api: httpx2.Client, shop: tuple[str, Key], header: str) -> None:
    text = f"Bearer {shop[0]}" if header == "Authorization" else shop[0]
    response = api.get("/v1/usage", headers={header: text})
    assert response.status_code == 200, response.text
    assert response.json()["owner"] == shop[1].owner


@pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "maskdrop_unknown"}, {"Authorization": "Bearer none"}])
def test_without_a_valid_key_every_dialect_returns_auth_failed(api: httpx2.Client, headers: dict[str, str]) -> None:
    for path in ("/v1/jobs", "/v1.0/account"):
        response = api.get(path, headers=headers)
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "auth_failed"
        assert response.json()["errors"][0]["code"] == "auth_failed"


def test_the_digest_stored_in_api_gateway_is_not_a_valid_key(
    api: httpx2.Client, deployment: keys.Deployment, shop: tuple[str, Key]
) -> None:
    stored = deployment.gateway.get_api_key(apiKey=shop[1].id, includeValue=True)["value"]
    assert stored == digest(shop[0])
    assert api.get("/v1/usage", headers={"X-Api-Key": stored}).status_code == 403


def test_the_health_check_needs_no_key(api: httpx2.Client) -> None:
    assert api.get("/v1/health").status_code == 200


def test_a_caller_sees_its_own_jobs_and_the_operator_sees_all(
    running: Running, api: httpx2.Client, shop: tuple[str, Key]
) -> None:
    own, foreign = a_job(running, shop[1].owner), a_job(running, "another")
    headers = {"X-Api-Key": shop[0]}
    assert [job["id"] for job in api.get("/v1/jobs", headers=headers).json()["jobs"]] == [own.id]
    assert api.get(f"/v1/jobs/{own.id}", headers=headers).json()["owner"] == shop[1].owner
    response = api.get(f"/v1/jobs/{foreign.id}", headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (404, "job_not_found")
    operator = {"X-Api-Key": running.stack.api_key}
    for job in (own, foreign):
        assert api.get(f"/v1/jobs/{job.id}", headers=operator).status_code == 200
    listed = api.get("/v1/jobs", params={"prefix": own.source.key}, headers=operator).json()["jobs"]
    assert [job["id"] for job in listed] == [own.id]


def test_requests_above_the_rate_limit_return_429_until_the_window_ends(
    api: httpx2.Client, shop: tuple[str, Key]
) -> None:
    responses = [api.get("/v1/usage", headers={"X-Api-Key": shop[0]}) for _ in range(6)]
    assert [response.status_code for response in responses] == [200] * 5 + [429]
    assert [response.headers["X-RateLimit-Remaining"] for response in responses] == ["4", "3", "2", "1", "0", "0"]
    assert {response.headers["X-RateLimit-Limit"] for response in responses} == {"5"}
    [reset] = {int(response.headers["X-RateLimit-Reset"]) for response in responses}
    assert responses[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(responses[-1].headers["Retry-After"]) <= 60
    assert abs(reset - datetime.now(UTC).timestamp()) <= 60


@pytest.mark.parametrize("where", [(), ("--stage", "local")], ids=["this machine", "an account"])
def test_the_keys_command_creates_lists_and_revokes_a_key(
    running: Running, api: httpx2.Client, where: tuple[str, ...]
) -> None:
    name = uuid.uuid4().hex[:8]
    output = command(running, "create", name, "--owner", "studio", "--rate", "7", *where)
    [text] = [word for word in output.split() if word.startswith("maskdrop_")]
    assert "whsec_" in output
    headers = {"X-Api-Key": text}
    response = api.get("/v1/usage", headers=headers)
    assert (response.json()["owner"], response.headers["X-RateLimit-Limit"]) == ("studio", "7")
    listed = command(running, "list", *where)
    [line] = [line for line in listed.splitlines() if name in line]
    assert text not in listed
    assert "whsec_" not in listed
    key_id = line.strip(" │┃|").split()[0]
    command(running, "revoke", key_id, *where)
    assert api.get("/v1/usage", headers=headers).status_code == 403
    assert name not in command(running, "list", *where)


def test_revoking_an_unknown_key_fails(running: Running) -> None:
    done = run(running, "revoke", "nokey")
    assert done.returncode == 1
    assert "nokey" in done.stderr


def test_listing_the_keys_of_an_unknown_stage_fails_with_its_name(running: Running) -> None:
    done = run(running, "list", "--stage", "nowhere")
    assert done.returncode == 1
    assert "Maskdrop-nowhere" in done.stderr


def test_a_request_signed_with_aws_credentials_needs_no_key(running: Running, api: httpx2.Client) -> None:
    owner = Credentials(running.stack.access_key_id, running.stack.secret_access_key)
    response = signed(running, api, "/iam/v1/usage", owner)
    assert response.status_code == 200, response.text
    assert response.json()["owner"].startswith("iam:arn:aws:")
    refused = api.get("/iam/v1/usage")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "auth_failed")
    with_key = api.get("/iam/v1/usage", headers={"X-Api-Key": running.stack.api_key})
    assert with_key.status_code == 403


def signed(running: Running, api: httpx2.Client, path: str, credentials: Credentials) -> httpx2.Response:
    """Sends a GET request with AWS Signature Version 4."""
    request = AWSRequest("GET", f"{running.stack.api_url}{path}")
    SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
    return api.get(path, headers=dict(request.headers))


def command(running: Running, *arguments: str) -> str:
    done = run(running, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(running: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `maskdrop keys` with the emulator as the AWS account."""
    argv = [sys.executable, "-m", "cli", "keys", *arguments]
    account = {
        "AWS_ENDPOINT_URL": running.stack.endpoint_url,
        "AWS_ACCESS_KEY_ID": running.stack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": running.stack.secret_access_key,
        "AWS_DEFAULT_REGION": running.stack.region,
    }
    env = {**os.environ, **running.config.to_env(), **account}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603


@contextmanager
def throttled(running: Running, handler: str) -> Iterator[None]:
    """Lambda throttles every invocation of a function."""
    functions = client(running.config, "lambda")
    name = function(running, handler)["FunctionName"]
    functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    try:
        yield
    finally:
        functions.delete_function_concurrency(FunctionName=name)


def function(running: Running, handler: str) -> dict[str, Any]:
    """Returns the configuration of the function with this handler."""
    pages = client(running.config, "lambda").get_paginator("list_functions").paginate()
    [found] = [one for page in pages for one in page["Functions"] if one["Handler"] == handler]
    return dict(found)


@contextmanager
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never responds."""
    with socket.create_server((HOST, 0)) as server:
        yield f"http://{HOST}:{server.getsockname()[1]}"


def is_refused(response: httpx2.Response) -> bool:
    """Whether the response states in the form of the API that the request may be sent again, and when."""
    error = response.json()["error"]
    return (response.status_code, error["code"], error["retryable"]) == (503, "overloaded", True) and (
        int(response.headers["Retry-After"]) > 0
    )


@pytest.mark.parametrize("handler", ["lambdas.authorize.handler", "lambdas.api.handler"])
def test_a_throttled_function_is_503_with_retry_after(running: Running, handler: str) -> None:
    with throttled(running, handler):
        response = running.images.http.get("/v1/usage")
    assert is_refused(response), response.text
    assert running.images.http.get("/v1/usage").status_code == 200


def test_an_authorizer_without_a_response_of_its_table_is_503_within_its_timeout(running: Running) -> None:
    functions, settings = client(running.config, "lambda"), function(running, "lambdas.authorize.handler")
    name, variables = settings["FunctionName"], settings["Environment"]["Variables"]
    with silent_server() as url:
        changed = {"Variables": {**variables, "AWS_ENDPOINT_URL_DYNAMODB": url}}
        functions.update_function_configuration(FunctionName=name, Environment=changed)
        try:
            response = running.images.http.get("/v1/usage", timeout=60)
        finally:
            functions.update_function_configuration(FunctionName=name, Environment={"Variables": variables})
    assert is_refused(response), response.text
    log = (running.config.state / "logs" / "emulator.log").read_text()
    assert f"Lambda {name} timed out" not in log
    assert running.images.http.get("/v1/usage").status_code == 200


def test_the_emulators_respond_to_no_web_page_and_to_no_other_host_name(running: Running) -> None:
    scan = {"X-Amz-Target": "DynamoDB_20120810.Scan", "Content-Type": "application/x-amz-json-1.0"}
    body = {"TableName": running.stack.registry}
    for url in (running.stack.endpoint_url, f"{running.stack.sagemaker_url}/ping"):
        for foreign in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
            response = httpx2.post(url, json=body, headers={**scan, **foreign}, trust_env=False)
            assert response.status_code == 403
            assert "access-control-allow-origin" not in response.headers


def test_a_source_url_does_not_reach_the_emulators(running: Running) -> None:
    for url in (running.stack.endpoint_url, running.stack.sagemaker_url):
        name = url.replace("127.0.0.1", "localhost")
        response = httpx2.post(
            f"{running.stack.api_url}/v1/jobs",
            json={"source": {"url": f"{name}/{running.stack.inbox}/inbox/a.jpg"}},
            headers={"X-Api-Key": running.stack.api_key},
            trust_env=False,
            timeout=60,
        )
        assert response.json()["error"]["code"] == "blocked_url"
