"""Measures time and memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0))
