"""Tests that one trace ID leads from a request to the outcome of its job."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys

import httpx2

from local.config import ROOT
from tests.e2e.conftest import Running, wait_until


def test_the_logs_of_every_function_contain_the_trace_of_the_request(
    running: Running, api: httpx2.Client, photo: bytes
) -> None:
    trace_id = secrets.token_hex(16)
    headers = {"X-Api-Key": running.stack.api_key, "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    key = f"uploads/{trace_id}.png"
    running.images.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=photo)
    source = {"bucket": running.stack.inbox, "key": key}
    created = api.post("v1/jobs", json={"source": source}, headers=headers)
    assert (created.status_code, created.json()["trace_id"]) == (202, trace_id)
    (job,) = running.wait_for_end([created.json()["id"]]).values()
    assert (job.state, job.trace_id) == ("done", trace_id)
    wait_until(lambda: {"api", "ingest", "record"} <= functions(running, trace_id), "the lines of the trace", 30)


def functions(running: Running, trace_id: str) -> set[str]:
    """Returns the functions whose logs contain a trace, by `maskdrop logs`."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cli", "logs", "--trace", trace_id, "--json"],
        cwd=ROOT,
        env={**os.environ, **running.config.to_env()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {json.loads(line)["function"] for line in done.stdout.splitlines()}
