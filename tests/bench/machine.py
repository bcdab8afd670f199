"""The machine by name, and two ceilings of one of its cores."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

RUNS = 7


@dataclass(frozen=True, slots=True)
class Ceilings:
    """gflops: 10^9 float32 operations a second. gigabytes_s: 10^9 bytes read and written a second."""

    gflops: float
    gigabytes_s: float


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor()
    return f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}"


def ceilings() -> Ceilings:
    """Of one core: a matrix product that stays in its cache, and a copy that does not."""
    side = 1024
    one = np.random.default_rng(0).random((side, side), np.float32)
    with threadpool_limits(1):
        flops = 2 * side**3 / _median_s(lambda: one @ one)
    source = np.ones(32 * 1024 * 1024, np.float32)
    target = np.empty_like(source)
    moved = 2 * source.nbytes / _median_s(lambda: np.copyto(target, source))
    return Ceilings(flops / 1e9, moved / 1e9)


def _median_s(work: Callable[[], Any]) -> float:
    work()
    runs = []
    for _ in range(RUNS):
        began = time.perf_counter()
        work()
        runs.append(time.perf_counter() - began)
    return statistics.median(runs)
