"""Tests `maskdrop redrive` on the stack, as the local stack and as an AWS account."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from local.config import ROOT
from maskdrop.errors import AttemptsExhausted
from maskdrop.job import Job, dropped
from tests.e2e.conftest import Running
from tests.fakes import a_source


@pytest.mark.parametrize("in_account", [False, True], ids=["this machine", "an account"])
def test_redrive_retries_the_failed_jobs_below_a_prefix(running: Running, photo: bytes, *, in_account: bool) -> None:
    folder = f"uploads/{uuid.uuid4().hex}/"
    jobs = [a_failed_job(running, f"{folder}{number}.jpg", photo) for number in range(3)]
    other = a_failed_job(running, f"uploads/{uuid.uuid4().hex}.jpg", photo)
    where = ("--stage", running.config.stage) if in_account else ()
    options = ("--code", "gave_up", "--prefix", folder, *where)
    assert redrive(running, "--dry-run", *options) == "3 jobs would be retried."
    assert redrive(running, *options) == "Retried 3 of 3 jobs."
    ended = running.wait_for_end(job.id for job in jobs)
    assert {job.state for job in ended.values()} == {"done"}
    assert redrive(running, *options) == "Retried 0 of 0 jobs."
    assert running.jobs.get(other.id) == other


def a_failed_job(running: Running, key: str, photo: bytes) -> Job:
    """Creates a job that failed after the maximum number of attempts."""
    bucket, now = running.stack.inbox, datetime.now(UTC)
    version = running.images.s3.put_object(Bucket=bucket, Key=key, Body=photo)["VersionId"]
    source = replace(a_source(key, version, len(photo)), bucket=bucket)
    error = AttemptsExhausted("The job failed after 5 attempts.").info
    job = replace(dropped(source, now), state="failed", owner="shop", attempts=5, error=error, finished_at=now)
    running.jobs.claim(job)
    return job


def redrive(running: Running, *arguments: str) -> str:
    """Runs `maskdrop redrive` with the emulator as the AWS account."""
    account = {
        "AWS_ENDPOINT_URL": running.stack.endpoint_url,
        "AWS_ACCESS_KEY_ID": running.stack.access_key_id,
        "AWS_SECRET_ACCESS_KEY": running.stack.secret_access_key,
        "AWS_DEFAULT_REGION": running.stack.region,
    }
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cli", "redrive", *arguments],
        cwd=ROOT,
        env={**os.environ, **running.config.to_env(), **account},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
