"""Memory, open files and threads over time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.load.resources import Trend, growing, size, trend, usage

TIMES = [60.0 * minute for minute in range(60)]


def test_a_measure_that_rises_has_its_slope_and_growth() -> None:
    found = trend(TIMES, [100 + minute for minute in range(60)])
    assert found.per_hour == pytest.approx(60)
    assert found.growth > 0.2


def test_the_warm_up_does_not_count() -> None:
    found = trend(TIMES, [10.0 * min(minute, 15) for minute in range(60)])
    assert (found.first, found.last, found.per_hour) == (150, 150, 0)


def test_too_few_samples_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least 10 samples; got 3"):
        trend([0, 1, 2], [1, 1, 1])


def test_only_memory_files_and_threads_must_not_grow() -> None:
    flat, rising = Trend(first=500, last=500, per_hour=0), Trend(first=500, last=600, per_hour=100)
    assert growing({"model": {"rss_mb": flat, "disk_mb": rising}}) == []
    assert growing({"model": {"rss_mb": rising}}) == ["rss_mb of model grew by 20%, from 500 to 600."]


def test_the_emulator_of_aws_may_grow() -> None:
    assert growing({"emulator": {"rss_mb": Trend(first=500, last=900, per_hour=400)}}) == []


def test_a_growth_of_a_few_files_does_not_count() -> None:
    assert growing({"model": {"files": Trend(first=20, last=25, per_hour=5)}}) == []


def test_usage_is_that_of_this_process_and_its_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1" * 2**20)
    used = usage(psutil.Process(), [tmp_path])
    assert used
    assert used.rss_mb > 10
    assert used.disk_mb == 1
    assert size(tmp_path / "missing") == 0


def test_a_program_that_ended_has_no_usage() -> None:
    process = psutil.Popen([sys.executable, "--version"], stdout=subprocess.DEVNULL)
    process.wait()
    assert usage(process) is None
