"""How long something takes, and how much memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
"""Of each measurement, at least; through the server twice as long."""

RUNS_MIN = 3
SLOW_S = 2.0
"""What takes longer is run once, and not warmed up."""


def runs(work: Callable[[], Any]) -> list[float]:
    """Seconds of each run: one to warm up, then at least RUNS_MIN and for SECONDS."""
    began = time.perf_counter()
    work()
    first = time.perf_counter() - began
    if first > SLOW_S:
        return [first]
    taken: list[float] = []
    while len(taken) < RUNS_MIN or sum(taken) < SECONDS:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return taken


def forget_peak(pid: int | str = "self") -> None:
    """`peak_mb` of this process begins anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mb(pid: int | str = "self") -> float:
    """Resident megabytes at the most, since the process began or `forget_peak`."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
