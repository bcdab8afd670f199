import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from local import processes
from local.config import AWS_PORT, LocalError
from local.processes import Program

SERVE = """
import http.server, os, signal, sys
class Ok(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(repr(dict(os.environ)).encode())
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Ok).serve_forever()
"""


def program(*argv: str) -> Program:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return Program(
        name="server",
        title="the server",
        argv=(sys.executable, "-c", SERVE, str(port), *argv),
        port=port,
        port_setting=AWS_PORT,
        health="/",
        env={"OWN": "1"},
    )


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    processes.stop("server", tmp_path, grace_s=0)


def test_a_program_starts_is_found_and_stops(state: Path) -> None:
    one = program()
    processes.start(one, state)
    processes.wait_until_ready(one, state, timeout_s=20)
    process = processes.find("server", state)
    assert process
    processes.stop("server", state)
    assert not psutil.pid_exists(process.pid)
    assert processes.find("server", state) is None
    processes.require_free(one)


def test_the_memory_of_a_program_is_that_of_its_process_until_it_is_killed(state: Path) -> None:
    one = program("stubborn")
    assert processes.memory_mb("server", state) == 0
    processes.start(one, state)
    processes.wait_until_ready(one, state, timeout_s=20)
    assert 1 < processes.memory_mb("server", state) < 1000
    process = processes.find("server", state)
    assert process
    processes.kill("server", state)
    process.wait(10)
    assert processes.memory_mb("server", state) == 0


def test_a_program_does_not_inherit_the_callers_environment(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    one = program()
    processes.start(one, state)
    process = processes.find("server", state)
    assert process
    processes.wait_until_ready(one, state, timeout_s=20)
    env = process.environ()
    assert env["OWN"] == "1"
    assert "AWS_SESSION_TOKEN" not in env
    assert Path(env["HOME"]).is_relative_to(state)


def test_a_program_that_ignores_sigterm_is_killed(state: Path) -> None:
    one = program("stubborn")
    processes.start(one, state)
    processes.wait_until_ready(one, state, timeout_s=20)
    process = processes.find("server", state)
    assert process
    processes.stop("server", state, grace_s=0.2)
    assert not psutil.pid_exists(process.pid)


def test_a_killed_program_is_no_longer_found(state: Path) -> None:
    one = program()
    processes.start(one, state)
    process = processes.find("server", state)
    assert process
    os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs([process], timeout=10)
    assert processes.find("server", state) is None


def test_another_process_with_a_reused_pid_is_neither_found_nor_stopped(state: Path) -> None:
    processes.write_pid_file("server", os.getpid(), state)
    pid_file = state / "pids" / "server.json"
    pid_file.write_text(json.dumps({**json.loads(pid_file.read_text()), "created": 0.0}))
    assert processes.find("server", state) is None
    processes.stop("server", state)  # must not stop this test process
    assert not pid_file.exists()


def test_a_port_in_use_is_reported_with_its_variable(state: Path) -> None:
    one = program()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one.port))
        taken.listen()
        with pytest.raises(LocalError, match=f"(?s){one.port}.*the server.*{AWS_PORT}"):
            processes.start(one, state)


def test_a_program_that_exits_at_start_is_reported_with_the_end_of_its_log(state: Path) -> None:
    one = program()
    failing = Program(
        name="server",
        title="the server",
        argv=(sys.executable, "-c", "raise SystemExit('no weights')"),
        port=one.port,
        port_setting=AWS_PORT,
        health="/",
    )
    processes.start(failing, state)
    with pytest.raises(LocalError, match=r"(?s)exited before it was ready.*no weights"):
        processes.wait_until_ready(failing, state, timeout_s=20)
