"""`make load`: runs every kind of user on the local stack for one minute and writes reports/load.html.

Starts a stack if none is running. MASKDROP_STACK: path of a JSON file that describes another stack.
LOAD_TIME: duration (default: 60s). LOAD_USERS: number of users (default: 8).
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from local import stack
from local.config import ROOT, LocalConfig
from tests.load.target import SETTING

RUN_TIME = os.environ.get("LOAD_TIME", "60s")
USERS = os.environ.get("LOAD_USERS", "8")


def main() -> int:
    with ExitStack() as cleanup:
        if SETTING not in os.environ:
            config = LocalConfig.from_env(os.environ)
            if stack.find(config) is None:
                print("No stack is running: starting one.")
                cleanup.callback(stack.down, config)
                stack.up(config)
            os.environ[SETTING] = str(config.state / "stack.json")
        report = ROOT / "reports" / "load.html"
        report.parent.mkdir(exist_ok=True)
        argv = ["-f", str(Path(__file__).with_name("locustfile.py")), "--headless", "--only-summary"]
        argv += ["--users", USERS, "--spawn-rate", "4", "--run-time", RUN_TIME, "--stop-timeout", "30"]
        argv += ["--html", str(report)]
        process = subprocess.run([sys.executable, "-m", "locust", *argv], cwd=ROOT, check=False)  # noqa: S603
        print(f"Report: {report.relative_to(ROOT)}")
        return process.returncode


if __name__ == "__main__":
    sys.exit(main())
