"""Programs that the local stack starts, finds again from another shell, and stops: always by process id, and only when
the process of that id is the very one that was started."""

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
from local.connect import trust

GRACE_S = 10.0
"""From SIGTERM to SIGKILL, in seconds: the model server finishes the image in hand within it."""

TAIL = 30
"""Lines of a log that an error shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One long-running program.

    env: all of its environment besides PATH, LANG, HOME and TMPDIR; nothing of the caller's is handed on.
    port, port_setting: where it listens on 127.0.0.1, and the environment variable that moves it.
    health: the path that answers 200 when it is ready.
    ca_bundle: what its certificate is verified with, where it speaks HTTPS.
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
    """Starts it in a session of its own, its words going to logs/<name>.log. Raises LocalError for a taken port."""
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
    with log.open("ab") as words:
        process = subprocess.Popen(  # noqa: S603  argv is ours
            program.argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    remember(program.name, process.pid, state)


def require_free(program: Program) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, program.port))
        except OSError:
            raise LocalError(
                f"Port {program.port}, meant for {program.title}, is taken by another program. "
                f"Free it, or set {program.port_setting} to another port."
            ) from None


def wait_until_ready(program: Program, state: Path, *, timeout_s: float, restarted: bool = False) -> None:
    """Returns when it answers 200. Raises LocalError with the end of its log when it ends or is late.

    restarted: someone else starts it again when it ends, so that its end alone is no reason to give up.
    """
    deadline = time.monotonic() + timeout_s
    url = f"{'https' if program.ca_bundle else 'http'}://{HOST}:{program.port}"
    with httpx2.Client(base_url=url, timeout=2, trust_env=False, verify=trust(program.ca_bundle)) as http:
        while time.monotonic() < deadline:
            try:
                if http.get(program.health).status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # not listening yet
            if not restarted and find(program.name, state) is None:
                raise LocalError(f"{program.title} ended while it started.\n{tail(program.name, state)}")
            time.sleep(0.05)
    raise LocalError(f"{program.title} was not ready within {timeout_s:.0f} s.\n{tail(program.name, state)}")


def remember(name: str, pid: int, state: Path) -> None:
    """Writes down a process by id and time of birth: an id may be given to another process later."""
    file = _pid_file(name, state)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pid": pid, "born": psutil.Process(pid).create_time()}))


def find(name: str, state: Path) -> psutil.Process | None:
    """The running process that was started under this name, or None."""
    try:
        note = json.loads(_pid_file(name, state).read_text())
        process = psutil.Process(note["pid"])
        if abs(process.create_time() - note["born"]) > 0.1:
            return None
        if not _runs(process):
            process.wait(0)  # as in `stop`
            return None
    except (FileNotFoundError, ValueError, psutil.Error):
        return None
    return process


def stop(name: str, state: Path, *, grace_s: float = GRACE_S) -> None:
    """SIGTERM, then SIGKILL for it and whatever it had started that is left after `grace_s` seconds."""
    process = find(name, state)
    if process is not None:
        try:
            family = [process, *process.children(recursive=True)]
            process.terminate()
        except psutil.NoSuchProcess:
            family = []
        deadline = time.monotonic() + grace_s
        while _runs(process) and time.monotonic() < deadline:
            time.sleep(0.05)
        left = [one for one in family if _runs(one)]
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, timeout=5)
        with suppress(psutil.Error):
            process.wait(0)  # for a child of ours; for another's it is a timeout
    _pid_file(name, state).unlink(missing_ok=True)


def _runs(process: psutil.Process) -> bool:
    """Whether it is there, and not merely waiting for its parent to notice its end."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def forget(name: str, state: Path) -> None:
    _pid_file(name, state).unlink(missing_ok=True)


def log_file(name: str, state: Path) -> Path:
    return state / "logs" / f"{name}.log"


def tail(name: str, state: Path) -> str:
    """The last lines of a program's log, under its path."""
    log = log_file(name, state)
    lines = log.read_text(errors="replace").splitlines()[-TAIL:] if log.exists() else []
    return "\n".join([f"{log} ends:", *(f"  {line}" for line in lines)])


def _pid_file(name: str, state: Path) -> Path:
    return state / "pids" / f"{name}.json"
