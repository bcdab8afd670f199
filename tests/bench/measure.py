"""Measures time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
"""Shortest duration of a measurement in seconds; through the server it is twice as long."""

RUNS_MIN = 3
SLOW_S = 2.0
"""A call that takes longer in seconds is measured once, without warm-up."""


def runs(call: Callable[[], Any]) -> list[float]:
    """Seconds of each call, after a warm-up call: at least RUNS_MIN calls and SECONDS in total."""
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    if first > SLOW_S:
        return [first]
    durations: list[float] = []
    while len(durations) < RUNS_MIN or sum(durations) < SECONDS:
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return durations


def reset_peak(pid: int | str = "self") -> None:
    """Resets the peak that `peak_mb` reports for a process."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int | str = "self") -> float:
    """Peak resident memory in megabytes since the start of the process or `reset_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


SAMPLE_S = 0.02
"""Seconds between two samples of `tree_peak`."""


@dataclass(slots=True)
class Peak:
    mb: float = 0.0


def tree_mb(pid: int) -> float:
    """Memory in megabytes of a process and its descendants; pages that they share count once (PSS)."""
    process = psutil.Process(pid)
    return sum(_pss_mb(one.pid) for one in (process, *process.children(recursive=True)))


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and its living descendants."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


@contextmanager
def tree_peak(pid: int, sample_s: float = SAMPLE_S) -> Iterator[Peak]:
    """Yields the highest `tree_mb` of samples every `sample_s`, complete when the context ends."""
    peak, ended = Peak(), Event()

    def watch() -> None:
        while not ended.wait(sample_s):
            peak.mb = max(peak.mb, tree_mb(pid))

    watching = Thread(target=watch)
    watching.start()
    try:
        yield peak
    finally:
        ended.set()
        watching.join()


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
