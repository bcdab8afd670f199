"""`make load-soak`: loads the local stack and `maskdrop serve` for an hour and samples what their processes use.

Passes if memory, open files and threads do not grow, no request fails and no job is lost. Writes soak.csv, soak.png and
a table to reports/soak/.

MINUTES     duration (default: 60)
HOURS       simulated hours in that time (default: 0, real time). With it, the instances of `bulk` start and stop in
            time-lapse, and the sweep, which ends expired leases every 5 minutes, is invoked as often as in these hours
RATE        photos and requests per second together (default: 0.5)
"""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psutil

from local import processes
from local.config import HOST, ROOT, LocalConfig
from local.connect import client
from tests.load.__main__ import locust, running_stack
from tests.load.mix import REMBG, vendor_requests
from tests.load.overload import PROGRAMS
from tests.load.resources import MEASURES, Trend, Usage, growing, trend, usage
from tests.load.settings import LoadSettings
from tests.ports import free_ports

REPORTS = ROOT / "reports" / "soak"

SAMPLES = 360
"""Number of samples in the run: one every 10 s in an hour."""

SWEEP_S = 300
"""Interval of the sweep's schedule in seconds (infra/sweep.py)."""

PHOTO = ROOT / "samples" / "default" / "astronaut.png"


class Sampler:
    """Samples programs. folders: those that each program writes."""

    def __init__(self, programs: dict[str, psutil.Process], folders: dict[str, list[Path]]) -> None:
        self._programs, self._folders = programs, folders
        self.samples: dict[str, list[Usage]] = {name: [] for name in programs}

    def sample(self) -> None:
        for name, process in self._programs.items():
            if used := usage(process, self._folders.get(name, [])):
                self.samples[name].append(used)

    def trends(self) -> dict[str, dict[str, Trend]]:
        return {
            name: {
                measure: trend([one.at for one in used], [float(getattr(one, measure)) for one in used])
                for measure in MEASURES
            }
            for name, used in self.samples.items()
            if len(used) >= 10
        }


@contextmanager
def repeating(interval_s: float, *calls: Any) -> Iterator[None]:
    """Runs calls in threads, each again after `interval_s` seconds, until the block ends. An error ends its thread."""
    end = threading.Event()

    def repeat(call: Any) -> None:
        while not end.wait(interval_s):
            call()

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join()


class Served:
    """`maskdrop serve` under load. refused: responses other than 200."""

    def __init__(self, folder: Path) -> None:
        self.port = free_ports(1)[0]
        self.folder, self.url = folder, f"http://{HOST}:{self.port}"
        self.ok = self.failed = 0

    def __enter__(self) -> Served:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "serve.log").open("wb") as log:
            argv = [sys.executable, "-m", "cli", "serve", "--no-auth", "--port", str(self.port)]
            argv += ["--data", str(self.folder / "data"), "--folder", str(LocalConfig().weights)]
            self.process = psutil.Popen(argv, stdout=log, stderr=log, cwd=ROOT)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            try:
                if httpx2.get(f"{self.url}/ping", trust_env=False, timeout=5).status_code == 200:
                    return self
            except httpx2.TransportError:
                pass  # starting
            time.sleep(0.5)
        self.__exit__()
        raise RuntimeError(f"`maskdrop serve` did not start; see {self.folder}/serve.log.")

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            self.process.kill()

    def request(self) -> None:
        arguments = vendor_requests(PHOTO.read_bytes())[REMBG]
        try:
            ok = httpx2.post(f"{self.url}{REMBG}", trust_env=False, timeout=60, **arguments).status_code == 200
        except httpx2.HTTPError:
            ok = False
        self.ok, self.failed = self.ok + ok, self.failed + (not ok)


def sweep(config: LocalConfig) -> None:
    """Invokes the function `sweep`, as its schedule does."""
    functions = client(config, "lambda")
    listed = [one for page in functions.get_paginator("list_functions").paginate() for one in page["Functions"]]
    [name] = [one["FunctionName"] for one in listed if one["Handler"] == "lambdas.sweep.handler"]
    functions.invoke(FunctionName=name, Payload=b"{}")


def table(trends: dict[str, dict[str, Trend]]) -> Iterator[str]:
    """Yields the lines of a Markdown table."""
    yield "| program | measure | first | last | growth | per hour |"
    yield "|---|---|---|---|---|---|"
    for program, measures in trends.items():
        for measure, one in measures.items():
            yield (
                f"| {program} | {measure} | {one.first:.1f} | {one.last:.1f} | {one.growth:+.1%} "
                f"| {one.per_hour:+.1f} |"
            )


def write(samples: dict[str, list[Usage]], folder: Path) -> None:
    """Writes soak.csv and soak.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [{"program": name, **one.to_row()} for name, used in samples.items() for one in used]
    with (folder / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    began = min(float(row["at"]) for row in rows)
    titles = {"rss_mb": "memory, MB", "files": "open files", "threads": "threads", "disk_mb": "disk, MB"}
    figure, axes = pyplot.subplots(len(MEASURES), 1, sharex=True, figsize=(11, 10), layout="constrained")
    for axis, measure in zip(axes, MEASURES, strict=True):
        for name, used in samples.items():
            axis.plot([(one.at - began) / 60 for one in used], [getattr(one, measure) for one in used], label=name)
        axis.set_ylabel(titles[measure])
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    axes[-1].set_xlabel("minutes")
    figure.savefig(folder / "soak.png", dpi=110)
    pyplot.close(figure)


def settings(minutes: float, hours: float, rate: float) -> LoadSettings:
    """The load of the stack: half of the rate are photos in the drop folder."""
    return LoadSettings(
        shape="soak",
        minutes=minutes,
        users=12,
        mix="below-capacity",
        rates={"DropFolderUser": rate / 2, **dict.fromkeys(("JobUser", "ImageUser", "VendorUser"), rate / 6)},
        time_lapse=hours * 60 / minutes,
        report=REPORTS / "load",
    )


def main() -> int:
    minutes, hours = float(os.environ.get("MINUTES", "60")), float(os.environ.get("HOURS", "0"))
    rate = float(os.environ.get("RATE", "0.5"))
    REPORTS.mkdir(parents=True, exist_ok=True)
    with running_stack() as file, Served(REPORTS / "serve") as served:
        config = LocalConfig.of_running_stack(os.environ)
        programs = {"serve": psutil.Process(served.process.pid)}
        programs |= {name: process for name in PROGRAMS if (process := processes.find(name, config.state))}
        folders = {"serve": [served.folder], "emulator": [config.account, config.state / "logs", config.state / "tmp"]}
        sampler = Sampler(programs, folders)
        with repeating(max(1, minutes * 60 / SAMPLES), sampler.sample), repeating(1 / rate, served.request):
            if hours:
                with repeating(minutes * 60 / (hours * 3600 / SWEEP_S), lambda: sweep(config)):
                    code = locust(settings(minutes, hours, rate), file)
            else:
                code = locust(settings(minutes, hours, rate), file)
    write(sampler.samples, REPORTS)
    trends = sampler.trends()
    lines, faults = list(table(trends)), growing(trends)
    if served.failed:
        faults.append(f"{served.failed} of {served.ok + served.failed} requests to `maskdrop serve` failed.")
    if code:
        faults.append("The load of the stack exceeded a limit; see its report.")
    (REPORTS / "table.md").write_text("\n".join(lines) + "\n")
    print(*lines, f"maskdrop serve: {served.ok} requests", *(faults or ["Nothing grows."]), sep="\n")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
