"""`make load`: both kinds of user for a minute, headless, against the stack on this machine, which is started when none
is up. Writes reports/load.html. With MASKDROP_STACK set, the stack is the one that file describes."""

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
                print("No stack is up: starting one.")
                cleanup.callback(stack.down, config)
                stack.up(config)
            os.environ[SETTING] = str(config.state / "stack.json")
        report = ROOT / "reports" / "load.html"
        report.parent.mkdir(exist_ok=True)
        argv = ["-f", str(Path(__file__).with_name("locustfile.py")), "--headless", "--only-summary"]
        argv += ["--users", USERS, "--spawn-rate", "4", "--run-time", RUN_TIME, "--stop-timeout", "30"]
        argv += ["--html", str(report)]
        done = subprocess.run([sys.executable, "-m", "locust", *argv], cwd=ROOT, check=False)  # noqa: S603
        print(f"Report: {report.relative_to(ROOT)}")
        return done.returncode


if __name__ == "__main__":
    sys.exit(main())
