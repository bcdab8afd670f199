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


def test_a_program_is_started_found_and_stopped(state: Path) -> None:
    one = program()
    processes.start(one, state)
    processes.wait_until_ready(one, state, timeout_s=20)
    process = processes.find("server", state)
    assert process
    processes.stop("server", state)
    assert not psutil.pid_exists(process.pid)
    assert processes.find("server", state) is None
    processes.require_free(one)


def test_a_program_sees_nothing_of_the_callers_environment(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_that_ignores_sigterm_is_killed(state: Path) -> None:
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


def test_a_process_that_got_the_id_later_is_neither_found_nor_stopped(state: Path) -> None:
    processes.write_pid_file("server", os.getpid(), state)
    note = state / "pids" / "server.json"
    note.write_text(json.dumps({**json.loads(note.read_text()), "created": 0.0}))
    assert processes.find("server", state) is None
    processes.stop("server", state)  # it would end these tests
    assert not note.exists()


def test_a_taken_port_is_named_with_its_setting(state: Path) -> None:
    one = program()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", one.port))
        taken.listen()
        with pytest.raises(LocalError, match=f"(?s){one.port}.*the server.*{AWS_PORT}"):
            processes.start(one, state)


def test_a_program_that_ends_at_once_is_told_with_its_last_words(state: Path) -> None:
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
