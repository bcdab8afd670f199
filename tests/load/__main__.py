"""`make load`: runs a load test against the local stack and writes reports/load/report.html.

Starts a stack if none is running. The variables are those of tests/load/settings.py without their prefix:

    make load                                  all kinds of users for one minute
    make load SHAPE=step MINUTES=5 USERS=20
    make load SHAPE=spike MINUTES=10 MIX=drop  wakes a sleeping endpoint: its instances are simulated in time-lapse
    make load SHAPE=soak                       one hour
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local import stack
from local.config import ROOT, LocalConfig
from tests.load.settings import LoadSettings
from tests.load.target import SETTING

MINUTES = {"soak": "60", "step": "5", "spike": "10"}
"""Default duration of a shape in minutes."""

LAPSED_MINUTES = 100
"""Simulated duration of a spike in minutes: a start of 7 minutes, the work, and 15 idle minutes until the scale-in."""


def main() -> int:
    for name in ("SHAPE", "MINUTES", "USERS", "MIX", "RATES", "TIME_LAPSE", "INSTANCES"):
        if os.environ.get(name):
            os.environ[f"LOAD_{name}"] = os.environ[name]
    shape = os.environ.get("LOAD_SHAPE", "steady")
    minutes = os.environ.setdefault("LOAD_MINUTES", MINUTES.get(shape, "1"))
    if shape == "spike":
        os.environ.setdefault("LOAD_MIX", "drop")
        os.environ.setdefault("LOAD_RATES", '{"DropFolderUser": 4}')
        os.environ.setdefault("LOAD_TIME_LAPSE", str(LAPSED_MINUTES / float(minutes)))
    with running_stack() as file:
        return locust(LoadSettings.from_env(), file)


@contextmanager
def running_stack() -> Iterator[str]:
    """Yields the path of the file that describes the stack under load; starts a local stack if none is running."""
    if SETTING in os.environ:
        yield os.environ[SETTING]
        return
    config = LocalConfig.from_env(os.environ)
    started = stack.find(config) is None
    if started:
        print("No stack is running: starting one.")
        stack.up(config)
    try:
        yield str(config.stack_file)
    finally:
        if started:
            stack.down(config)


def locust(settings: LoadSettings, stack_file: str) -> int:
    """Runs Locust with the settings and returns its exit code: 1 if the run exceeds a limit."""
    file = Path(__file__).with_name("locustfile.py")
    argv = ["-f", str(file), "--headless", "--only-summary", "--loglevel", "WARNING", "--stop-timeout", "60"]
    settings.report.mkdir(parents=True, exist_ok=True)
    argv += ["--csv", str(settings.report / "locust")]
    env = {**os.environ, **settings.to_env(), SETTING: stack_file}
    return subprocess.run([sys.executable, "-m", "locust", *argv], cwd=ROOT, env=env, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(main())
