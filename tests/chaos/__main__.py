"""`make chaos`: sends images to a local stack with faults, and reconciles it afterwards.

    make chaos N=10000 SEED=1

N: number of images (default: 500). SEED: of the plan of faults (default: 1). SHARE: probability of a fault of a call or
a message (default: 0.02). Exit status: 0 without findings, 1 with findings.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass

from local.config import AWS_PORT, MODEL_PORT, ROOT, SAGEMAKER_PORT, STATE_DIR, LocalConfig
from maskdrop.reconcile import Finding
from tests.chaos.harness import Harness, started
from tests.chaos.plan import disturbances
from tests.ports import free_ports

CHUNK = 20
"""Images that are sent at once."""

SHARE = 0.02
"""Probability of a fault of a call or a message: most are hidden by the retries of the AWS SDK, as in AWS."""

WAITING_MAX = 400
"""Messages, and images at the endpoint, before the next images wait up to WAIT_S: so the disturbances meet images at
every stage."""

WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Report:
    """faults, disturbances: number of each kind. states: number of records by state, and by code of the failed ones.
    rounds: of simulated time until the stack was settled."""

    images: int
    accepted: int
    faults: Counter[str]
    disturbances: Counter[str]
    states: Counter[str]
    findings: list[Finding]
    rounds: int


def run(harness: Harness, images: int, share: float) -> Report:
    """Sends images while the faults of the plan are injected, lets the stack settle, and reconciles."""
    sent = threading.Event()
    progress = [0]
    errors: list[BaseException] = []

    def disturb() -> None:
        try:
            for event in disturbances(harness.seed, images):
                while progress[0] < event.after and not sent.is_set():
                    time.sleep(0.05)
                harness.disturb(event)
        except Exception as error:  # noqa: BLE001  raised by the main thread
            errors.append(error)

    harness.faults(share=share)
    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        while progress[0] < images:
            harness.send(min(CHUNK, images - progress[0]))
            progress[0] += CHUNK
            deadline = time.monotonic() + WAIT_S
            while harness.waiting() > WAITING_MAX and time.monotonic() < deadline:
                time.sleep(0.1)
    finally:
        sent.set()
        disturber.join()
    if errors:
        raise errors[0]
    rounds = harness.settle()
    states = Counter(f"failed {job.error.code}" if job.error else job.state for job in harness.records())
    return Report(
        images=images,
        accepted=len(harness.accepted),
        faults=harness.faults(),
        disturbances=harness.disturbances,
        states=states,
        findings=harness.findings(),
        rounds=rounds,
    )


def main() -> int:
    images, seed = int(os.environ.get("N", "500")), int(os.environ.get("SEED", "1"))
    share = float(os.environ.get("SHARE", SHARE))
    state = ROOT / ".local" / f"chaos-{os.getpid()}"
    ports = map(str, free_ports(3))
    settings = dict(zip((AWS_PORT, SAGEMAKER_PORT, MODEL_PORT), ports, strict=True))
    config = LocalConfig.from_env({**os.environ, STATE_DIR: str(state), **settings})
    with ExitStack() as cleanup:
        print(f"Starting a stack with seed {seed} in {state.relative_to(ROOT)}", flush=True)
        harness = cleanup.enter_context(started(config, seed))
        start = time.monotonic()
        report = run(harness, images, share)
        seconds = time.monotonic() - start
    print(f"{report.images} images sent, {report.accepted} sources accepted, {seconds:.0f} s, {report.rounds} rounds")
    for title, counts in (
        ("Faults of calls and messages", report.faults),
        ("Disturbances", report.disturbances),
        ("Records", report.states),
    ):
        print(f"{title}: {sum(counts.values())}")
        for name, count in sorted(counts.items()):
            print(f"  {name:28} {count:7}")
    print(f"Findings: {len(report.findings)}")
    for finding in report.findings[:50]:
        print(f"  {finding.kind:22} {finding.subject}  {finding.message}")
    if not report.findings:
        shutil.rmtree(state, ignore_errors=True)
    print(f"Seed: {seed}. The logs are in {state}/logs." if report.findings else f"Seed: {seed}")
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
