"""The load test itself: under a spike, the simulated instances of `bulk` start, scale and stop, and no job is lost."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.config import ROOT
from tests.e2e.conftest import Running
from tests.load.settings import LoadSettings
from tests.load.target import SETTING

pytestmark = pytest.mark.skipif(
    "MASKDROP_TEST_LOAD" not in os.environ, reason="Takes one to five minutes; `make test-load` runs it."
)


def test_a_spike_wakes_the_endpoint_which_returns_to_zero_and_every_photo_ends(
    running: Running, tmp_path: Path
) -> None:
    settings = LoadSettings(
        shape="spike",
        minutes=0.3,  # 5 s of load
        users=4,
        mix="drop",
        rates={"DropFolderUser": 4},
        time_lapse=300,  # an instance starts in 1.4 s, and stops after 3 s without work
        settle_s=120,
        report=tmp_path,
    )
    argv = [sys.executable, "-m", "locust", "-f", "tests/load/locustfile.py", "--headless", "--only-summary"]
    env = {**os.environ, **settings.to_env(), SETTING: str(running.config.stack_file)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, timeout=240, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["accepted"] == summary["ends"]["done"] > 0
    assert summary["lost"] == 0
    with (tmp_path / "samples.csv").open() as file:
        ready = [int(row["ready"] or 0) for row in csv.DictReader(file)]
    assert ready[0] == 0
    assert max(ready) >= 1
    assert ready[-1] == 0
    assert (tmp_path / "plot.png").stat().st_size > 10_000
