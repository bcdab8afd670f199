"""Memory, open files, threads and disk of running programs, and how they change over time."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

MB = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of one program with its child processes. at: Unix time in seconds. disk_mb: of the folders that it writes."""

    at: float
    rss_mb: float
    files: int
    threads: int
    processes: int
    disk_mb: float

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


MEASURES = ("rss_mb", "files", "threads", "disk_mb")


def usage(process: psutil.Process, folders: Iterable[Path] = ()) -> Usage | None:
    """Returns what a program uses now; None after its end."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return None
    rss, files, threads, alive = 0, 0, 0, 0
    for one in family:
        try:
            rss, files, threads = (
                rss + one.memory_info().rss,
                files + one.num_fds(),
                threads + one.num_threads(),
            )
            alive += 1
        except psutil.NoSuchProcess:
            continue  # it ended since it was listed
    disk = sum(size(folder) for folder in folders)
    return Usage(at=time.time(), rss_mb=rss / MB, files=files, threads=threads, processes=alive, disk_mb=disk / MB)


def size(folder: Path) -> int:
    """Returns the bytes of the files in a folder; files that are deleted meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Change of one measure. first, last: medians of the first and of the last fifth. per_hour: slope by least squares
    over all samples after the warm-up."""

    first: float
    last: float
    per_hour: float

    @property
    def growth(self) -> float:
        """Ratio by which the measure grew."""
        return self.last / self.first - 1 if self.first else 0.0


WARM_UP = 0.3
"""Part of the samples, from the begin, that the trend leaves out: caches fill and functions start."""


def trend(times: Sequence[float], values: Sequence[float]) -> Trend:
    """times: in seconds. Raises ValueError for fewer than 10 samples."""
    if len(values) < 10:
        raise ValueError(f"A trend needs at least 10 samples; got {len(values)}.")
    skipped = int(len(values) * WARM_UP)
    times, values = times[skipped:], values[skipped:]
    fifth = max(1, len(values) // 5)
    slope, _ = statistics.linear_regression(times, values)
    return Trend(
        first=statistics.median(values[:fifth]), last=statistics.median(values[-fifth:]), per_hour=slope * 3600
    )


GROWTH_MAX = {"rss_mb": 0.1, "files": 0.1, "threads": 0.1}
"""Maximum growth of a measure over the run. Disk is reported only: results and logs are kept."""

REPORTED_ONLY = ("emulator",)
"""Programs that may grow: MiniStack keeps tables, queues and metrics in memory, and starts functions as needed."""


def growing(trends: Mapping[str, Mapping[str, Trend]]) -> list[str]:
    """trends: program -> measure -> trend. Returns what grows beyond its limit, as sentences."""
    return [
        f"{measure} of {program} grew by {one.growth:.0%}, from {one.first:.0f} to {one.last:.0f}."
        for program, measures in trends.items()
        for measure, one in measures.items()
        if program not in REPORTED_ONLY
        and one.growth > GROWTH_MAX.get(measure, float("inf"))
        and one.last - one.first > 10
    ]
