"""The web console of the local stack, with a fake AWS emulator."""

from __future__ import annotations

import json
from pathlib import Path

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from local.config import LocalConfig
from local.console import console_routes, console_url


class Emulator:
    """Records requests, and responds with `response` or raises it."""

    def __init__(self) -> None:
        self.requests: list[httpx2.Request] = []
        self.response: httpx2.Response | httpx2.HTTPError = httpx2.Response(200, content=b"ok")

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        if isinstance(self.response, httpx2.HTTPError):
            raise self.response
        return self.response


@pytest.fixture
def emulator() -> Emulator:
    return Emulator()


@pytest.fixture
def console(emulator: Emulator, tmp_path: Path) -> TestClient:
    config = LocalConfig(state=tmp_path)
    config.stack_file.write_text(json.dumps({"api_url": "http://127.0.0.1:4566/restapis/a/local/_user_request_"}))
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(emulator))
    return TestClient(Starlette(routes=console_routes(config, http)), base_url=config.sagemaker_url)


def test_the_api_is_on_the_origin_of_the_console(console: TestClient, emulator: Emulator) -> None:
    emulator.response = httpx2.Response(202, json={"id": "1"}, headers={"Location": "/v1/jobs/1"})
    response = console.post("/v1/jobs?wait=1", json={"source": {}}, headers={"x-api-key": "md_1"})

    assert (response.status_code, response.json(), response.headers["location"]) == (202, {"id": "1"}, "/v1/jobs/1")
    (sent,) = emulator.requests
    assert (sent.method, str(sent.url)) == (
        "POST",
        "http://127.0.0.1:4566/restapis/a/local/_user_request_/v1/jobs?wait=1",
    )
    assert (sent.headers["x-api-key"], json.loads(sent.content)) == ("md_1", {"source": {}})


def test_a_presigned_url_is_forwarded_as_it_was_signed(console: TestClient, emulator: Emulator) -> None:
    files = console.get("/console/config.json").json()["files"]
    signed = "http://127.0.0.1:4566/results/results/a%2Bb%20c.png?X-Amz-Signature=1%2F2"
    ((prefix, path),) = files.items()
    assert signed.startswith(prefix)

    assert console.get(path + signed.removeprefix(prefix)).content == b"ok"
    (sent,) = emulator.requests
    assert str(sent.url) == signed
    assert sent.headers["host"] == "127.0.0.1:4566"


def test_a_stored_file_runs_no_script_on_the_origin_of_the_console(console: TestClient, emulator: Emulator) -> None:
    emulator.response = httpx2.Response(200, content=b"<svg/>", headers={"Content-Type": "image/svg+xml"})
    headers = console.get("/files/inbox/uploads/1/a.svg").headers
    assert headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert (headers["content-type"], headers["x-content-type-options"]) == ("image/svg+xml", "nosniff")


def test_a_stopped_emulator_is_an_error_that_can_be_retried(console: TestClient, emulator: Emulator) -> None:
    emulator.response = httpx2.ConnectError("refused")
    response = console.get("/v1/jobs")
    assert (response.status_code, response.json()["error"]["retryable"]) == (502, True)


def test_a_stack_that_starts_is_an_error_that_can_be_retried(console: TestClient, tmp_path: Path) -> None:
    (tmp_path / "stack.json").unlink()
    response = console.get("/v1/jobs")
    assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")


def test_the_url_of_the_console_is_that_of_the_emulator_of_sagemaker() -> None:
    assert console_url(LocalConfig(sagemaker_port=9000)) == "http://127.0.0.1:9000/console/"
