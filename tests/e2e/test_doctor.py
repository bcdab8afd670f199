"""`maskdrop doctor` and `maskdrop smoke` on the stack, as this machine's stack and as a stage of an account."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.config import ROOT, STAGE, STATE_DIR
from tests.e2e.conftest import Running


def run(running: Running, *arguments: str, account: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a command. account: with the emulator as the AWS account."""
    env = {**os.environ, **running.config.to_env()}
    if account:
        env |= {
            "AWS_ENDPOINT_URL": running.stack.endpoint_url,
            "AWS_ACCESS_KEY_ID": running.stack.access_key_id,
            "AWS_SECRET_ACCESS_KEY": running.stack.secret_access_key,
            "AWS_REGION": running.stack.region,
            # A machine without a running stack, and with another stage than that of the account.
            STATE_DIR: str(running.config.state / "none"),
            STAGE: "local-cpu" if running.config.stage == "local" else "local",
        }
    argv = [sys.executable, "-m", "cli", *arguments]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603


def test_doctor_checks_what_the_local_stack_has(running: Running) -> None:
    done = run(running, "doctor", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    levels = {line["name"]: line["level"] for line in json.loads(done.stdout)}
    assert set(levels.values()) == {"ok", "not checked"}
    checked = {name for name, level in levels.items() if level == "ok"}
    assert {"credentials", "bootstrap", "queues", running.config.app_stack} <= checked
    assert {"instances", "image", "mail"} <= set(levels) - checked


def test_doctor_reads_the_state_of_a_stage_and_warns_of_services_that_do_not_respond(running: Running) -> None:
    lines = run(running, "doctor", "--stage", running.config.stage, "--json", account=True)
    assert "Traceback" not in lines.stderr
    levels = {line["name"]: line["level"] for line in json.loads(lines.stdout)}
    assert levels["queues"] == levels[running.config.app_stack] == "ok"
    assert levels["endpoints"] == "warning"  # the emulator has no API of SageMaker


@pytest.mark.parametrize("account", [False, True], ids=["this machine", "an account"])
def test_smoke_processes_an_image_and_deletes_it(running: Running, account: bool) -> None:
    stage = ("--stage", running.config.stage) if account else ()
    done = run(running, "smoke", *stage, account=account)
    assert done.returncode == 0, done.stdout + done.stderr
    steps = [line.split(" s  ")[1].split()[0] for line in done.stdout.splitlines()]
    # The template names the API by its host in AWS, so that an account of the emulator has no API.
    assert steps == ["uploaded", "processed", "fetched", *(() if account else ["synchronous"])]
    contents = running.images.s3.list_objects_v2(Bucket=running.stack.inbox, Prefix="inbox/default/smoke-")
    assert contents["KeyCount"] == 0


def test_smoke_exits_1_when_the_image_is_broken(running: Running, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    done = run(running, "smoke", "--image", str(broken))
    assert (done.returncode, "failed" in done.stderr) == (1, True), done.stdout + done.stderr
