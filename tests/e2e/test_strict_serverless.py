"""Tests the strict mode with serverless endpoints: `invoke` and the endpoints use their own IAM roles."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from local.config import ROOT, STAGE, STRICT, LocalConfig
from tests.e2e.conftest import Running, environment, started_stack
from tests.e2e.test_cutouts import grainy
from tests.e2e.test_strict import get, new_calls

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="the strict mode needs the program openssl")


@pytest.fixture(scope="module")
def serverless(request: pytest.FixtureRequest) -> Iterator[Running]:
    variables = environment(ROOT / ".local" / f"e2e-{os.getpid()}-strict-cpu")
    config = LocalConfig.from_env({**variables, STRICT: "1", STAGE: "local-cpu"})
    with started_stack(config, request.session) as running:
        yield running


def test_a_dropped_photo_is_processed_with_the_deployed_roles(serverless: Running, photo: bytes) -> None:
    good, bad = serverless.put(photo), serverless.put(b"This is no image.")
    finished = serverless.wait_for_end([good, bad])
    assert [finished[one].state for one in (good, bad)] == ["done", "failed"]


def test_a_synchronous_request_is_processed_with_the_deployed_roles(serverless: Running, photo: bytes) -> None:
    http = serverless.images.http
    headers = {"Content-Type": "image/jpeg"}
    assert http.post("/v1/cutouts", content=photo, headers=headers, timeout=60).status_code == 200
    large = http.post("/v1/cutouts", content=grainy(photo), headers=headers, timeout=60)
    assert large.status_code == 303, large.text
    assert get(serverless, large.headers["location"]).status_code == 200


def test_the_calls_of_the_roles_are_those_that_tests_compare_with_the_policies(serverless: Running) -> None:
    """If this fails, record the calls: MASKDROP_RECORD_CALLS=1 python -m pytest tests/e2e/test_strict*.py"""
    assert new_calls(serverless) == set()
