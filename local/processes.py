"""Starts, finds and stops the programs of the local stack.

A PID file stores the PID and creation time of a program. Any shell can find the program, and no other process is
stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from local.config import HOST, LocalError
from local.connect import tls_verify

GRACE_S = 10.0
"""Seconds from SIGTERM to SIGKILL, enough for the model server to finish the current image."""

TAIL = 30
"""Number of log lines in an error message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One long-running program.

    title: name of the program in messages.
    env: environment variables in addition to PATH, LANG, HOME and TMPDIR. The caller's environment is not inherited.
    port, port_setting: port on 127.0.0.1, and the environment variable that changes it.
    health: path that returns 200 when the program is ready.
    ca_bundle: CA bundle that verifies its certificate; None for plain HTTP.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    port: int
    port_setting: str
    health: str
    env: dict[str, str] = field(default_factory=dict)
    ca_bundle: Path | None = None


def start(program: Program, state: Path) -> None:
    """Starts a program in a new session and appends its output to logs/<name>.log.

    Raises LocalError when its port is in use.
    """
    require_free(program)
    log = log_file(program.name, state)
    log.parent.mkdir(parents=True, exist_ok=True)
    temporary = state / "tmp" / program.name
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LANG": "C.UTF-8",
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "PYTHONUNBUFFERED": "1",
        **program.env,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  fixed arguments
            program.argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    write_pid_file(program.name, process.pid, state)


def require_free(program: Program) -> None:
    """Raises LocalError when the port of the program is in use."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, program.port))
        except OSError:
            raise LocalError(
                f"Port {program.port} of {program.title} is in use by another program. "
                f"Stop that program, or set {program.port_setting} to a free port."
            ) from None


def wait_until_ready(program: Program, state: Path, *, timeout_s: float, restarted: bool = False) -> None:
    """Returns when the health check returns 200.

    Raises LocalError with the end of the log when the program exits or is not ready within `timeout_s` seconds.
    restarted: whether another process restarts the program, so that its exit is not an error.
    """
    deadline = time.monotonic() + timeout_s
    url = f"{'https' if program.ca_bundle else 'http'}://{HOST}:{program.port}"
    with httpx2.Client(base_url=url, timeout=2, trust_env=False, verify=tls_verify(program.ca_bundle)) as http:
        while time.monotonic() < deadline:
            try:
                if http.get(program.health).status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # not listening yet
            if not restarted and find(program.name, state) is None:
                raise LocalError(f"{program.title} exited before it was ready.\n{tail(program.name, state)}")
            time.sleep(0.05)
    raise LocalError(f"{program.title} was not ready within {timeout_s:.0f} s.\n{tail(program.name, state)}")


def write_pid_file(name: str, pid: int, state: Path) -> None:
    """Writes the PID and creation time of a process, since the system may reuse a PID."""
    file = _pid_file(name, state)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pid": pid, "created": psutil.Process(pid).create_time()}))


def find(name: str, state: Path) -> psutil.Process | None:
    """Returns the running process that was started under this name; None if there is none."""
    try:
        record = json.loads(_pid_file(name, state).read_text())
        process = psutil.Process(record["pid"])
        if abs(process.create_time() - record["created"]) > 0.1:
            return None
        if not _runs(process):
            process.wait(0)  # reaps a child process, as in `stop`
            return None
    except (FileNotFoundError, ValueError, psutil.Error):
        return None
    return process


def stop(name: str, state: Path, *, grace_s: float = GRACE_S) -> bool:
    """Stops a program: SIGTERM; after `grace_s` seconds SIGKILL for it and its remaining child processes.

    Returns whether the program was running and ended before SIGKILL.
    """
    process = find(name, state)
    ended = False
    if process is not None:
        try:
            family = [process, *process.children(recursive=True)]
            process.terminate()
        except psutil.NoSuchProcess:
            family = []
        deadline = time.monotonic() + grace_s
        while _runs(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        ended = not _runs(process)
        remaining = [one for one in family if _runs(one)]
        for one in remaining:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(remaining, timeout=5)
        with suppress(psutil.Error):
            process.wait(0)  # reaps a child process; raises a timeout for any other
    _pid_file(name, state).unlink(missing_ok=True)
    return ended


def kill(name: str, state: Path) -> None:
    """Kills a program without a grace period."""
    if process := find(name, state):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def memory_mb(name: str, state: Path) -> float:
    """Returns the memory (resident set size) of a program and its child processes in MB; 0 if it does not run."""
    process = find(name, state)
    if process is None:
        return 0.0
    try:
        return sum(one.memory_info().rss for one in (process, *process.children(recursive=True))) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def _runs(process: psutil.Process) -> bool:
    """Returns whether the process exists and is not a zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def remove_pid_file(name: str, state: Path) -> None:
    """Removes the PID file of a program, if it exists."""
    _pid_file(name, state).unlink(missing_ok=True)


def log_file(name: str, state: Path) -> Path:
    return state / "logs" / f"{name}.log"


def tail(name: str, state: Path) -> str:
    """Returns the path and the last lines of a program's log."""
    log = log_file(name, state)
    lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.exists() else []
    return "\n".join([f"End of {log}:", *(f"  {line}" for line in lines)])


def _pid_file(name: str, state: Path) -> Path:
    return state / "pids" / f"{name}.json"
