"""Tests `maskdrop audit`, `backfill` and `status` on the stack, which lost an event, a result and a record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from local.config import ROOT
from local.connect import client
from maskdrop.job import Source, dropped
from tests.e2e.conftest import Running, inbox_key


def test_an_audit_finds_what_is_lost_and_a_backfill_processes_the_photos(running: Running, photo: bytes) -> None:
    folder = f"default/{uuid.uuid4().hex}/"
    jobs = running.wait_for_end(running.put(photo, f"{folder}{name}.png") for name in "abc")
    kept, no_result, no_record = jobs.values()
    assert no_result.result
    assert no_record.result
    with without_events(running):
        lost = put(running, f"{inbox_key(folder)}lost +ä.png", photo)
    running.images.s3.delete_object(Bucket=no_result.result.bucket, Key=no_result.result.key)
    running.jobs.delete(no_record.id, state="done")

    expected = {
        ("lost", lost),
        ("lost", no_record.id),
        ("result_missing", no_result.id),
        ("result_without_record", f"s3://{no_record.result.bucket}/{no_record.result.key}"),
    }
    code, found = audit(running)
    findings = {(one["kind"], one["subject"]) for one in found["findings"]}
    assert (code, expected - findings, [one for one in findings if kept.id in one]) == (1, set(), [])

    assert command(running, "backfill", inbox_key(folder), "--dry-run")[1].startswith("4 photos")
    code, text = command(running, "backfill", inbox_key(folder))
    assert (code, text) == (0, f"4 photos below {inbox_key(folder)}, 2 without a job: queued.")
    ended = running.wait_for_end([lost, no_record.id])
    assert {job.state for job in ended.values()} == {"done"}
    assert command(running, "backfill", inbox_key(folder))[1].endswith("0 without a job: queued.")

    _, found = audit(running)
    left = {(one["kind"], one["subject"]) for one in found["findings"]} & expected
    assert left == {("result_missing", no_result.id)}


def test_the_status_of_a_stage_has_its_jobs_queues_and_errors(running: Running, photo: bytes) -> None:
    good, bad = running.put(photo), running.put(b"no image")
    running.wait_for_end([good, bad])
    code, text = command(running, "status", "--stage", running.config.stage, "--json")
    found = json.loads(text)
    assert code == (1 if found["alarms"] else 0)
    assert (found["jobs"]["done"] >= 1, found["jobs"]["failed"] >= 1) == (True, True)
    assert {"Jobs", "Results", "Webhooks", "Dead"} <= found["queues"].keys()
    assert bad in {one["job"] for one in found["errors"]}


def put(running: Running, key: str, body: bytes) -> str:
    """Uploads a photo and returns the id of the job that its event would make."""
    version = running.images.s3.put_object(Bucket=running.stack.inbox, Key=key, Body=body)["VersionId"]
    return dropped(Source(running.stack.inbox, key, version), datetime.now(UTC)).id


@contextmanager
def without_events(running: Running) -> Iterator[None]:
    """S3 sends no events of the inbox, as before the stage was deployed."""
    s3, bucket = client(running.config, "s3"), running.stack.inbox
    before = s3.get_bucket_notification_configuration(Bucket=bucket)
    before.pop("ResponseMetadata")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    try:
        yield
    finally:
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=before)


def audit(running: Running) -> tuple[int, dict[str, list[dict[str, str]]]]:
    code, text = command(running, "audit", "--idle", "--digests", "--json")
    return code, json.loads(text)


def command(running: Running, *arguments: str) -> tuple[int, str]:
    """Runs `maskdrop` for the stack. Returns its exit code and output."""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **running.config.to_env(), "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode, done.stdout.strip()
