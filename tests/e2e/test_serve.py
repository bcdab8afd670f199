"""`maskdrop serve` as a process: every dialect, and SIGTERM under load."""

from __future__ import annotations

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import httpx2
import pytest

from local.config import ROOT, LocalConfig
from tests.ports import free_ports

PHOTO = ROOT / "samples" / "default" / "astronaut.png"
CLIENTS = 8
START_S = 120


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Runs the server; yields its process and URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "cli", "serve", "--no-auth", "--port", str(port), "--data", str(tmp_path)]
    env = {**os.environ, "MODEL_WEIGHTS_DIR": str(LocalConfig().weights), "PYTHONPATH": str(ROOT)}
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=log)  # noqa: S603
    try:
        assert process.stdout
        line = process.stdout.readline()  # printed once the engines are ready
        assert line.startswith(b"Serving on http://127.0.0.1"), (tmp_path / "log").read_text()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()


def test_every_dialect_is_served_without_aws(server: tuple[subprocess.Popen[bytes], str]) -> None:
    photo, url = PHOTO.read_bytes(), server[1]
    with httpx2.Client(base_url=url, timeout=60, trust_env=False) as client:
        for path, name in (
            ("/v1/cutouts", "image"),
            ("/v1.0/removebg", "image_file"),
            ("/api/remove", "file"),
        ):
            response = client.post(path, files={name: ("photo.png", photo, "image/png")})
            assert response.status_code == 200, (path, response.text)
        matte = client.post("/v1.0/alpha-channel-base64", json={"image_base64": base64.b64encode(photo).decode()})
        assert matte.json()["alpha_base64"]
        assert client.get("/v1.0/account").json()["data"]["attributes"]["credits"]["total"] > 0
        assert client.get("/v1/usage").json()["pictures"] == 4
        detection = client.post("/detect-airplane", content=photo, headers={"Content-Type": "application/jpeg"})
        assert detection.status_code in (200, 400, 503), detection.text  # no detector is installed by default


def test_sigterm_under_load_leaves_no_half_response(server: tuple[subprocess.Popen[bytes], str]) -> None:
    process, url = server
    photo, port = PHOTO.read_bytes(), int(url.rpartition(":")[2])
    outcomes: list[str] = []
    ended = threading.Semaphore(0)

    def send_until_the_end() -> None:
        """Sends photos on one connection until the server refuses a connection."""
        while True:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.request("POST", "/v1/cutouts", photo, {"Content-Type": "image/png"})
            except OSError:
                return  # refused: the request was not accepted
            try:
                response = connection.getresponse()
            except (HTTPException, OSError):
                outcomes.append("none")  # no byte of a response: the client sends the request elsewhere
                return
            body = response.read()  # raises IncompleteRead for a part of a body
            outcomes.append(f"{response.status} {len(body) == int(response.headers['Content-Length'])}")
            ended.release()
            connection.close()

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(send_until_the_end) for _ in range(CLIENTS)]
        for _ in range(2 * CLIENTS):
            assert ended.acquire(timeout=30), outcomes
        process.send_signal(signal.SIGTERM)  # while each client waits for its third response, or sends its photo
        for client in clients:
            client.result()
    assert process.wait(START_S) == 0
    whole = [outcome for outcome in outcomes if outcome != "none"]
    assert len(whole) > 2 * CLIENTS, "requests in progress are finished"
    assert set(whole) == {"200 True"}
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port)):
        pass
