"""`python -m tests.bench.plan`: compares the simulation of `maskdrop plan` with the local stack in three scenarios.

Further runs calibrate it: single photos give the time of an idle stack; photos at once, before and after each scenario,
give the images a second of the instance, which is chosen so that the simulated runs take as long as the measured ones.
Runs on both sides compensate a machine whose speed changes. Writes reports/plan.json and reports/plan.png. Exits 1 if
the time from the first upload to the last record differs by more than GOAL.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.table import Table

from infra import stages
from lambdas.adapters.jobs import JobsTable
from local import stack
from local.autoscaling import Target
from local.config import ROOT, LocalConfig
from local.connect import client
from local.images import ImageClient
from local.simulation import System, Times, simulate
from tests.bench.machine import machine
from tests.bench.photos import Photos
from tests.ports import free_ports

GOAL = 0.15
"""Largest difference between simulated and measured completion time, as a share of the measured one."""

LAST = "first upload to last record"

CLIENTS = 8
"""Concurrent uploads."""

CALIBRATION = 64
"""Photos at once of the calibration."""

EMULATOR_BATCH = 10
"""Messages of an invocation in the emulator, which neither collects larger batches nor waits for a window."""

SINGLES = 5
"""Single photos of the calibration, one after the other."""

STEADY_S = 60.0
"""Duration of the steady load."""

WAIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Run:
    """Photos of one scenario: times of their uploads and of their records, in seconds from the first upload."""

    uploaded: Times
    recorded: Times

    @property
    def end_s(self) -> float:
        return float(self.recorded.max())

    @property
    def completion_s(self) -> Times:
        return self.recorded - self.uploaded


def scenarios(rate: float) -> dict[str, Times]:
    """Returns name -> times of the uploads in seconds. rate: calibrated images a second."""
    steady = np.cumsum(np.random.default_rng(1).exponential(1 / (0.7 * rate), round(0.7 * rate * STEADY_S)))
    return {
        "200 at once": np.zeros(200),
        f"steady, 70 % of the rate, {STEADY_S:.0f} s": steady,
        "two bursts of 100, 15 s apart": np.repeat([0.0, 15.0], 100),
    }


def main() -> int:
    console = Console(highlight=False, width=110)
    aws, sagemaker, model = free_ports(3)
    state = ROOT / ".local" / "plan"
    config = LocalConfig(aws_port=aws, sagemaker_port=sagemaker, model_port=model, state=state, folder=state)
    photo = Photos.create().photo
    measured: dict[str, tuple[Run, System]] = {}
    try:
        with console.status("Starting a separate stack"):
            running = stack.up(config)
            images = ImageClient(config, running)
            jobs = JobsTable(client(config, "dynamodb"), running.table, keep_days=30)
        with console.status("Calibrating"):
            upload(images, jobs, photo, "warm", np.zeros(16))
            idle_s = statistics.median(
                upload(images, jobs, photo, f"single-{n}", np.zeros(1)).end_s for n in range(SINGLES)
            )
            before = upload(images, jobs, photo, "calibration", np.zeros(CALIBRATION))
        for name, times in scenarios(calibrated(idle_s, [before]).images_per_second).items():
            with console.status(name):
                run = upload(images, jobs, photo, name, times)
                after = upload(images, jobs, photo, "calibration", np.zeros(CALIBRATION))
            measured[name] = run, calibrated(idle_s, [before, after])
            before = after
    finally:
        stack.down(config)
    rows = [row for name, (run, system) in measured.items() for row in compared(name, run, system)]
    table = Table("scenario", "images/s", "completion", "measured s", "simulated s", "difference")
    for name, what, seconds, simulated in rows:
        rate = measured[name][1].images_per_second
        table.add_row(
            name, f"{rate:.1f}", what, f"{seconds:.2f}", f"{simulated:.2f}", f"{simulated / seconds - 1:+.1%}"
        )
    console.print(table)
    console.print(f"{machine()}; a single photo takes {idle_s:.2f} s. Goal: {LAST} within {GOAL:.0%}.")
    report = ROOT / "reports" / "plan.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text(json.dumps({"machine": machine(), "idle_s": idle_s, "rows": rows}, indent=1))
    draw(measured)
    return int(any(abs(simulated / seconds - 1) > GOAL for _, what, seconds, simulated in rows if what == LAST))


def upload(images: ImageClient, jobs: JobsTable, photo: bytes, name: str, times: Times) -> Run:
    """Uploads a photo at each of the times, waits for the records and returns both times. Raises RuntimeError if a job
    fails or takes more than WAIT_S seconds."""
    start = time.time()

    def put(number: int) -> tuple[str, float]:
        time.sleep(max(start + times[number] - time.time(), 0))
        job_id = images.upload(f"default/plan/{name}-{start}/{number}.jpg", photo)
        return job_id, time.time()

    with ThreadPoolExecutor(CLIENTS) as pool:
        uploads = list(pool.map(put, range(len(times))))
    recorded = [_finished(jobs, job_id, start + WAIT_S) for job_id, _ in uploads]
    first = min(at for _, at in uploads)
    return Run(np.array([at for _, at in uploads]) - first, np.array(recorded) - first)


def _finished(jobs: JobsTable, job_id: str, deadline: float) -> float:
    """The time at which a job was recorded. Polled rarely, because polling takes CPU time."""
    while time.time() < deadline:
        job = jobs.get(job_id)
        if job and job.error:
            raise RuntimeError(f"{job.source.key} failed: {job.error.message}")
        if job and job.state == "done" and job.finished_at:
            return job.finished_at.timestamp()
        time.sleep(0.5)
    raise RuntimeError(f"The job {job_id} had not ended after {WAIT_S:.0f} s.")


def calibrated(idle_s: float, runs: Sequence[Run]) -> System:
    """Returns the system whose simulated runs take as long as the measured ones, all together.

    idle_s: time of a single photo. It is shared by the event and the notification, besides the windows of the queues.
    """
    stage = stages.load("local")
    system = System(
        images_per_second=1.0,
        target=Target(endpoint="local", minimum=1, maximum=1),
        bundle_max=stage.bundle_max,
        executions=stage.source_concurrency,
        batch_max=EMULATOR_BATCH,
        window_s=0.0,
        record_window_s=0.0,
        spread=0.0,
        transfer_s=0.0,
        event_s=0.0,
        notification_s=0.0,
    )
    measured_s = sum(run.end_s for run in runs)
    for _ in range(3):  # the two figures depend little on each other
        low, high = 0.1, 1000.0
        while high / low > 1.001:
            middle = (low * high) ** 0.5
            faster = replace(system, images_per_second=middle)
            end_s = sum(simulate(faster, np.sort(run.uploaded)).end_s for run in runs)
            low, high = (middle, high) if end_s > measured_s else (low, middle)
        system = replace(system, images_per_second=low)
        rest_s = idle_s - (simulate(replace(system, event_s=0.0, notification_s=0.0), np.zeros(1)).end_s)
        system = replace(system, event_s=max(rest_s, 0.0) / 2, notification_s=max(rest_s, 0.0) / 2)
    return system


def compared(name: str, run: Run, system: System) -> list[tuple[str, str, float, float]]:
    """Returns scenario, figure, measured and simulated seconds."""
    outcome = simulate(system, np.sort(run.uploaded))
    return [
        (name, "p50", float(np.percentile(run.completion_s, 50)), outcome.percentile(50)),
        (name, "p95", float(np.percentile(run.completion_s, 95)), outcome.percentile(95)),
        (name, LAST, run.end_s, outcome.end_s),
    ]


def draw(measured: dict[str, tuple[Run, System]]) -> None:
    """Draws the images recorded over time, measured and simulated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    panels = figure.subplots(1, len(measured), squeeze=False)[0]
    for axes, (name, (run, system)) in zip(panels, measured.items(), strict=True):
        outcome = simulate(system, np.sort(run.uploaded))
        count = np.arange(1, len(run.uploaded) + 1)
        lines: Sequence[tuple[Times, str, str]] = (
            (run.uploaded, "uploaded", "0.7"),
            (run.recorded, "recorded", "C0"),
            (np.array([at for at, images in outcome.records for _ in range(images)]), "simulated", "C1"),
        )
        for times, label, colour in lines:
            axes.step(np.sort(times), count, where="post", label=label, color=colour)
        axes.set(title=name, xlabel="s", ylabel="images", xlim=(0, None), ylim=(0, None))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right")
    figure.savefig(ROOT / "reports" / "plan.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
