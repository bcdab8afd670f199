"""Keys as an operator makes them and callers use them: by API Gateway, the authorizer and the registry of the stack."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import httpx2
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local import keys
from local.config import APP_STACK, REGION, ROOT
from local.connect import client
from maskdrop.access import Key, digest
from maskdrop.job import Job, dropped
from tests.e2e.conftest import Running
from tests.fakes import a_source


@pytest.fixture(scope="module")
def deployment(running: Running) -> keys.Deployment:
    return keys.Deployment.from_stack(APP_STACK, partial(client, running.config))


@pytest.fixture
def shop(deployment: keys.Deployment) -> Iterator[tuple[str, Key]]:
    """A key of an owner of its own: its text, and what is kept of it."""
    text, key = keys.create_key(deployment, "a shop", rate=5)
    yield text, key
    if digest(text) in keys.list_keys(deployment):
        keys.revoke_key(deployment, key.id)


def a_job(running: Running, owner: str) -> Job:
    """A job on record, of an owner."""
    now = datetime.now(UTC)
    job = replace(dropped(a_source(f"uploads/{uuid.uuid4().hex}.jpg"), now), owner=owner)
    running.jobs.claim(job)
    return job


def test_the_first_key_sees_all_and_any_later_one_its_own(deployment: keys.Deployment, shop: tuple[str, Key]) -> None:
    first = min(keys.list_keys(deployment).values(), key=lambda key: key.created_at)
    assert (first.scope, shop[1].scope) == ("all", "own")
    assert shop[1].owner == shop[1].id


@pytest.mark.parametrize("header", ["X-Api-Key", "x-api-key", "X-API-KEY", "Authorization"])
def test_a_key_opens_in_either_header(api: httpx2.Client, shop: tuple[str, Key], header: str) -> None:
    text = f"Bearer {shop[0]}" if header == "Authorization" else shop[0]
    answer = api.get("/v1/usage", headers={header: text})
    assert answer.status_code == 200, answer.text
    assert answer.json()["owner"] == shop[1].owner


@pytest.mark.parametrize("headers", [{}, {"X-Api-Key": "maskdrop_unknown"}, {"Authorization": "Bearer none"}])
def test_without_a_key_that_is_known_every_dialect_reads_auth_failed(
    api: httpx2.Client, headers: dict[str, str]
) -> None:
    for path in ("/v1/jobs", "/v1.0/account"):
        answer = api.get(path, headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "auth_failed"
        assert answer.json()["errors"][0]["code"] == "auth_failed"


def test_the_digest_that_api_gateway_keeps_opens_nothing(
    api: httpx2.Client, deployment: keys.Deployment, shop: tuple[str, Key]
) -> None:
    kept = deployment.gateway.get_api_key(apiKey=shop[1].id, includeValue=True)["value"]
    assert kept == digest(shop[0])
    assert api.get("/v1/usage", headers={"X-Api-Key": kept}).status_code == 403


def test_health_is_open(api: httpx2.Client) -> None:
    assert api.get("/v1/health").status_code == 200


def test_a_caller_sees_its_own_jobs_and_the_operator_all(
    running: Running, api: httpx2.Client, shop: tuple[str, Key]
) -> None:
    mine, anothers = a_job(running, shop[1].owner), a_job(running, "another")
    headers = {"X-Api-Key": shop[0]}
    assert [job["id"] for job in api.get("/v1/jobs", headers=headers).json()["jobs"]] == [mine.id]
    assert api.get(f"/v1/jobs/{mine.id}", headers=headers).json()["owner"] == shop[1].owner
    answer = api.get(f"/v1/jobs/{anothers.id}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "job_not_found")
    operator = {"X-Api-Key": running.stack.api_key}
    for job in (mine, anothers):
        assert api.get(f"/v1/jobs/{job.id}", headers=operator).status_code == 200
    listed = api.get("/v1/jobs", params={"prefix": mine.source.key}, headers=operator).json()["jobs"]
    assert [job["id"] for job in listed] == [mine.id]


def test_calls_are_counted_down_and_refused_until_the_window_is_over(api: httpx2.Client, shop: tuple[str, Key]) -> None:
    answers = [api.get("/v1/usage", headers={"X-Api-Key": shop[0]}) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"5"}
    [reset] = {int(answer.headers["X-RateLimit-Reset"]) for answer in answers}
    assert answers[-1].json()["error"]["code"] == "rate_limit_exceeded"
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 60
    assert abs(reset - datetime.now(UTC).timestamp()) <= 60


@pytest.mark.parametrize("where", [(), ("--stage", "dev")], ids=["this machine", "an account"])
def test_a_key_is_made_listed_and_revoked_by_command_and_then_opens_nothing(
    running: Running, api: httpx2.Client, where: tuple[str, ...]
) -> None:
    name = uuid.uuid4().hex[:8]
    made = command(running, "create", name, "--owner", "studio", "--rate", "7", *where)
    [text] = [word for word in made.split() if word.startswith("maskdrop_")]
    assert "whsec_" in made
    headers = {"X-Api-Key": text}
    answer = api.get("/v1/usage", headers=headers)
    assert (answer.json()["owner"], answer.headers["X-RateLimit-Limit"]) == ("studio", "7")
    listed = command(running, "list", *where)
    [line] = [line for line in listed.splitlines() if name in line]
    assert text not in listed
    assert "whsec_" not in listed
    key_id = line.strip(" │┃|").split()[0]
    command(running, "revoke", key_id, *where)
    assert api.get("/v1/usage", headers=headers).status_code == 403
    assert name not in command(running, "list", *where)


def test_a_key_that_is_not_there_cannot_be_revoked(running: Running) -> None:
    done = run(running, "revoke", "nokey")
    assert done.returncode == 1
    assert "nokey" in done.stdout


def test_a_stage_that_is_not_there_is_said_to_be_not_there(running: Running) -> None:
    done = run(running, "list", "--stage", "nowhere")
    assert done.returncode == 1
    assert "Maskdrop-nowhere" in done.stdout


def test_a_caller_that_signs_with_its_credentials_needs_no_key(running: Running, api: httpx2.Client) -> None:
    owner = Credentials(running.stack.access_key_id, running.stack.secret_access_key)
    answer = signed(running, api, "/iam/v1/usage", owner)
    assert answer.status_code == 200, answer.text
    assert answer.json()["owner"].startswith("iam:arn:aws:")
    refused = api.get("/iam/v1/usage")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "auth_failed")
    with_key = api.get("/iam/v1/usage", headers={"X-Api-Key": running.stack.api_key})
    assert with_key.status_code == 403


def signed(running: Running, api: httpx2.Client, path: str, credentials: Credentials) -> httpx2.Response:
    """A GET signed by AWS's fourth version."""
    request = AWSRequest("GET", f"{running.stack.api_url}{path}")
    SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
    return api.get(path, headers=dict(request.headers))


def command(running: Running, *words: str) -> str:
    done = run(running, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(running: Running, *words: str) -> subprocess.CompletedProcess[str]:
    """The command, with an account that is the emulator's."""
    argv = [sys.executable, "-m", "cli", "keys", *words]
    account = {
        "AWS_ENDPOINT_URL": running.stack.endpoint_url,
        "AWS_ACCESS_KEY_ID": running.stack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": running.stack.secret_access_key,
        "AWS_DEFAULT_REGION": running.stack.region,
    }
    env = {**os.environ, **running.config.to_env(), **account}
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603
