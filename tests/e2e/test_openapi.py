"""Tests the API against its OpenAPI document."""

import httpx2
from openapi_spec_validator import OpenAPIV31SpecValidator

from lambdas.http.openapi import operations
from tests.e2e.conftest import Running
from tests.fuzz.__main__ import fuzz


def test_the_openapi_document_and_its_page_need_no_key(running: Running) -> None:
    with httpx2.Client(trust_env=False) as http:
        description = http.get(f"{running.stack.api_url}/v1/openapi.json")
        page = http.get(f"{running.stack.api_url}/v1/docs")
    assert description.status_code == 200
    assert not list(OpenAPIV31SpecValidator(description.json()).iter_errors())
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-encoding"] == "gzip"
    assert "SwaggerUIBundle(" in page.text


def test_the_api_passes_all_checks_of_schemathesis(
    running: Running,
) -> None:
    # Without the phase "coverage": its thousands of requests for images take minutes. `make fuzz` runs all phases.
    phases = ("--phases", "examples,fuzzing,stateful")
    done = fuzz(running.config, running.stack.api_url, "--seed", "1", "--max-examples", "5", *phases)
    assert done.returncode == 0, done.stdout + done.stderr
    # schemathesis does not select the path of the document itself.
    assert f"{len(operations()) - 1} selected" in done.stdout
