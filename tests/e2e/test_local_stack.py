"""Tests the commands `up`, `down` and `run` on a second stack."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from PIL import Image

from local import processes, stack
from local.config import AWS_PORT, ROOT, SAGEMAKER_PORT, LocalConfig
from local.images import ImageClient
from local.model_server import model_server
from tests.e2e.conftest import environment, wait_until

LOCAL = (sys.executable, "-m", "cli")


@pytest.fixture
def env() -> Iterator[dict[str, str]]:
    state = ROOT / ".local" / f"e2e-{os.getpid()}-second"
    variables = environment(state)
    yield {**os.environ, **variables}
    config = LocalConfig.from_env(variables)
    processes.stop("foreground", state)
    stack.down(config)
    shutil.rmtree(state, ignore_errors=True)


def test_up_watches_the_drop_folder_and_down_stops_all_processes(env: dict[str, str], photo: bytes) -> None:
    config = LocalConfig.from_env(env)
    up = subprocess.Popen([*LOCAL, "up"], cwd=ROOT, env=env, stdout=subprocess.DEVNULL)  # noqa: S603  fixed arguments
    wait_until(lambda: config.drop.exists(), "the folder drop/")
    started = processes_of(config)
    assert set(started) == {"foreground", "emulator", "sagemaker", "model"}
    all_processes = [one for process in started.values() for one in (process, *process.children(recursive=True))]

    (config.drop / "webp").mkdir()
    (config.drop / "webp" / "a.png").write_bytes(photo)
    (config.drop / "b.png").write_bytes(photo)
    results = [config.results / "webp" / "a.png.webp", config.results / "default" / "b.png.png"]
    wait_until(lambda: all(path.exists() and path.stat().st_size for path in results), "the results")
    assert [Image.open(path).size for path in results] == [(512, 512)] * 2

    assert call("down", env).returncode == 0
    assert up.wait(10) == 0
    assert not [one for one in all_processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    for program in stack.programs(config):
        processes.require_free(program)
    assert not list((config.state / "pids").iterdir())
    assert not (config.state / "stack.json").exists()
    assert not (config.state / "tmp").exists()

    assert "Nothing is running." in call("down", env).stdout


def test_a_restart_keeps_jobs_keys_names_and_urls_until_a_reset(env: dict[str, str], photo: bytes) -> None:
    config = LocalConfig.from_env(env)
    with running(config) as first:
        job_id = ImageClient(config, first).upload("webp/a.png", photo)
        wait_until(lambda: (ImageClient(config, first).job(job_id) or {}).get("state") == "done", "the job")
    with running(config) as second:
        assert second == first
        images = ImageClient(config, second)
        assert [job["id"] for job in images.http.get("/v1/jobs").json()["jobs"]] == [job_id]
        assert images.download(images.job(job_id) or {}, config.results).stat().st_size
        new = images.upload("webp/b.png", photo)
        wait_until(lambda: (images.job(new) or {}).get("state") == "done", "a new job")
        processes.kill("emulator", config.state)
    assert config.unclean_file.exists()  # the next start deletes the account
    assert call("reset", env).returncode == 0
    assert not config.account.exists()


@contextmanager
def running(config: LocalConfig) -> Iterator[stack.Stack]:
    try:
        yield stack.up(config)
    finally:
        stack.down(config)


def test_run_processes_the_samples_and_stops_the_stack(env: dict[str, str]) -> None:
    config = LocalConfig.from_env(env)
    done = call("run", env)
    assert done.returncode == 0, done.stdout + done.stderr
    photos = [path for path in (ROOT / "samples").rglob("*.*") if path.parent != ROOT / "samples"]
    written = [path for path in config.results.rglob("*") if path.is_file()]
    assert len(written) == len(photos)
    assert done.stdout.count("done") >= len(photos)
    assert not processes_of(config)


def test_an_occupied_port_is_reported_with_its_setting(env: dict[str, str]) -> None:
    with socket.socket() as occupied:
        occupied.bind(("127.0.0.1", int(env[SAGEMAKER_PORT])))
        occupied.listen()
        done = call("run", env)
    assert done.returncode == 1
    output = " ".join(done.stderr.split())
    assert env[SAGEMAKER_PORT] in output
    assert SAGEMAKER_PORT in output
    assert AWS_PORT not in output


def test_all_processes_listen_on_the_loopback_interface_only(env: dict[str, str]) -> None:
    config = LocalConfig.from_env(env)
    try:
        stack.up(config)
        listening = {
            connection.laddr.ip
            for process in processes_of(config).values()
            for one in (process, *process.children(recursive=True))
            for connection in one.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
    finally:
        stack.down(config)
    assert listening == {"127.0.0.1"}
    assert model_server(config).env["MODEL_HOST"] == "127.0.0.1"


def call(command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LOCAL, command], cwd=ROOT, env=env, capture_output=True, text=True, check=False)  # noqa: S603


def processes_of(config: LocalConfig) -> dict[str, psutil.Process]:
    """Returns the running processes of a stack."""
    names = ("foreground", "emulator", "sagemaker", "model")
    found = {name: processes.find(name, Path(config.state)) for name in names}
    return {name: process for name, process in found.items() if process}
