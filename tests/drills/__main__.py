"""`make drill`: upgrades, roll backs and a restore on a local stack that processes images; nothing may be lost.

    make drill FROM=v0.0.9 N=100

FROM: commit of the other version (default: HEAD, an unchanged version). N: images of each phase (default: 40).

1. Deploys the version of the checkout, sends images, and rolls back to FROM while they are processed.
2. Sends images, and upgrades to the version of the checkout while they are processed.
3. Copies the tables to a file, deletes every record and preset, and restores them.

After each phase every image has one record, in state `done`, and its result: `maskdrop audit` has no findings. Exit
status 1 if one is lost. The endpoint's container is that of the checkout in every phase: stacks are deployed one after
the other, so that the functions of one version meet the container of another.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from lambdas.adapters.jobs import JobsTable
from local import stack
from local.audit import Deployed, audit
from local.config import AWS_PORT, MODEL_PORT, ROOT, SAGEMAKER_PORT, STATE_DIR, LocalConfig
from local.connect import client
from local.images import ENDED, ImageClient
from local.keys import outputs_of
from local.tables import dump, load
from maskdrop.reconcile import Finding
from tests.ports import free_ports

FOLDER = ROOT / ".local" / "drill"

END_S = 900.0
"""Maximum time until the images of a phase are finished, in seconds. The emulator ends the running invocations of a
function that is updated; their messages are redelivered after up to 420 s (`infra.queues.visibility`)."""

POLL_S = 0.5


@dataclass(frozen=True)
class Drill:
    """A running stack. sent: ids of the jobs of all images so far."""

    config: LocalConfig
    images: ImageClient
    deployed: Deployed
    photo: bytes
    count: int
    sent: list[str]

    def phase(self, name: str, change: Callable[[], None]) -> list[Finding]:
        """Sends images before and after a change, waits for their end and audits the stack."""
        start = time.monotonic()
        self._send(name, "before")
        change()
        changed_s = time.monotonic() - start
        self._send(name, "after")
        unfinished = self._wait()
        findings = audit(self.deployed, datetime.now(UTC), idle=not unfinished, digests=True).findings
        print(
            f"{name}: {2 * self.count} images, change after {changed_s:.0f} s, end after "
            f"{time.monotonic() - start:.0f} s, {len(unfinished)} unfinished, {len(findings)} findings",
            flush=True,
        )
        for job_id in unfinished:
            job = self.deployed.jobs.get(job_id)
            reason = f"{job.state}, attempts {job.attempts}, {job.error}" if job else "no record"
            findings.append(Finding("stuck", job_id, reason))
        return findings

    def _send(self, name: str, when: str) -> None:
        self.sent.extend(
            self.images.upload(f"default/{name}/{when}-{number}.png", self.photo) for number in range(self.count)
        )

    def _wait(self) -> list[str]:
        """Returns the ids of the jobs that are not done after END_S."""
        deadline = time.monotonic() + END_S
        waiting = list(self.sent)
        while waiting and time.monotonic() < deadline:
            jobs = {job_id: self.deployed.jobs.get(job_id) for job_id in waiting}
            waiting = [job_id for job_id, job in jobs.items() if job is None or job.state not in ENDED]
            time.sleep(POLL_S)
        failed = [job_id for job_id in self.sent if (job := self.deployed.jobs.get(job_id)) and job.state == "failed"]
        return waiting + failed


def synthesize_at(commit: str, stage: str) -> Path:
    """Synthesizes the templates of a commit. Returns the folder that has `cdk.out`."""
    made = FOLDER / "made"
    shutil.rmtree(FOLDER / "source", ignore_errors=True)
    shutil.rmtree(made, ignore_errors=True)
    archive = FOLDER / "source.tar"
    subprocess.run(  # noqa: S603
        ["git", "archive", "--output", str(archive), commit],  # noqa: S607
        cwd=ROOT,
        check=True,
    )
    with tarfile.open(archive) as files:
        files.extractall(FOLDER / "source", filter="data")
    environment = {
        **os.environ,
        "CDK_CONTEXT_JSON": json.dumps({"stage": stage}),
        "CDK_OUTDIR": str(made / "cdk.out" / stage),
        "PYTHONPATH": str(FOLDER / "source"),
    }
    subprocess.run([sys.executable, "app.py"], cwd=FOLDER / "source", env=environment, check=True)
    return made


def deploy(config: LocalConfig) -> None:
    for name in config.stacks:
        stack.deploy_stack(config, name)


def lose_and_restore(config: LocalConfig, tables: Mapping[str, str]) -> None:
    """Copies the tables, deletes all their items, and writes them back."""
    dynamodb = client(config, "dynamodb")
    lines = list(dump(dynamodb, tables))
    for line in lines:
        names = ("id",) if line["table"] == "JobsTable" else ("kind", "name")
        dynamodb.delete_item(TableName=tables[line["table"]], Key={name: line["item"][name] for name in names})
    assert not list(dump(dynamodb, tables))
    *_, restored = load(dynamodb, tables, lines)
    print(f"restored: {dict(restored.written)}", flush=True)


def main() -> int:
    commit, count = os.environ.get("FROM") or "HEAD", int(os.environ.get("N") or 40)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the stack
    FOLDER.mkdir(parents=True, exist_ok=True)
    ports = map(str, free_ports(3))
    variables = dict(zip((AWS_PORT, SAGEMAKER_PORT, MODEL_PORT), ports, strict=True))
    config = LocalConfig.from_env({STATE_DIR: str(FOLDER / "state"), **variables})
    other = replace(config, made=synthesize_at(commit, config.stage))
    findings: list[Finding] = []
    try:
        running = stack.up(config)
        jobs = JobsTable(client(config, "dynamodb"), running.table, keep_days=30)
        outputs = outputs_of(config.app_stack, partial(client, config))
        names = ("Jobs", "Results", "DeadLetters")
        queues = {name.removesuffix("Letters"): outputs[f"{name}QueueUrl"] for name in names}
        deployed = Deployed(
            s3=client(config, "s3"),
            sqs=client(config, "sqs"),
            jobs=jobs,
            inbox=running.inbox,
            results=running.results,
            queues=queues,
            keep=timedelta(days=30),
        )
        photo = (ROOT / "samples" / "default" / "astronaut.png").read_bytes()
        drill = Drill(config, ImageClient(config, running), deployed, photo, count, [])
        tables = {"JobsTable": running.table, "RegistryTable": running.registry}
        findings += drill.phase("roll-back", lambda: deploy(other))
        findings += drill.phase("upgrade", lambda: deploy(config))
        lose_and_restore(config, tables)
        findings += drill.phase("restored", lambda: None)
    finally:
        stack.down(config)
        shutil.rmtree(config.state, ignore_errors=True)
    for finding in findings:
        print(f"{finding.kind}  {finding.subject}: {finding.message}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
