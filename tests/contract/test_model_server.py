"""The contract of the container with SageMaker (readiness, limits, SIGTERM), tested with a real process."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import httpx2
import numpy as np
import pytest

from maskdrop.wire import CUSTOM_ATTRIBUTES
from tests import bombs

REPOSITORY = Path(__file__).parents[2]
START_S = 60

SMALL = cv2.imencode(".jpg", np.full((60, 80, 3), 90, np.uint8))[1].tobytes()


def slow_image() -> bytes:
    """Returns a 12 MP image of noise, which takes more than a second to process."""
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), np.uint8)
    return cv2.imencode(".jpg", cv2.resize(noise, (4000, 3000)))[1].tobytes()


def npy(array: np.ndarray) -> bytes:
    to = io.BytesIO()
    np.save(to, array)
    return to.getvalue()


class Server:
    def __init__(self, weights: Path, **settings: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        env = {
            **os.environ,
            "MODEL_PORT": str(self.port),
            "MODEL_WEIGHTS_DIR": str(weights),
            "AWS_DEFAULT_REGION": "us-east-1",
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "sagemaker_model", "serve"],
            cwd=REPOSITORY,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.http.get("/ping").status_code == 200:
                    return
            except httpx2.TransportError:
                pass
        raise AssertionError(f"the server did not start: {self.stop()}")

    def send(self, body: bytes, **options: object) -> httpx2.Response:
        headers = {"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: json.dumps(options)}
        return self.http.post("/invocations", content=body, headers=headers)

    def working(self) -> bool:
        return "maskdrop_queue_pictures 1.0" in self.http.get("/metrics").text

    def stop(self) -> str:
        """Stops the server and returns its log."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.communicate(timeout=60)[1]


@pytest.fixture(scope="module")
def server(weights_dir: Path) -> Iterator[Server]:
    running = Server(weights_dir, MODEL_WORKERS="2", MODEL_DECODE_S="1")
    running.wait()
    yield running
    running.stop()


def test_a_response_names_the_device(server: Server) -> None:
    response = server.send(SMALL)
    assert response.status_code == 200
    assert json.loads(response.headers[CUSTOM_ATTRIBUTES])["device"] == "cpu"


def test_sigterm_finishes_the_current_request_rejects_new_ones_and_exits_with_status_0(weights_dir: Path) -> None:
    server = Server(weights_dir, MODEL_WORKERS="2")
    server.wait()
    body = slow_image()
    with ThreadPoolExecutor(1) as pool:
        response = pool.submit(server.send, body)
        while not server.working():
            assert not response.done()
        server.process.send_signal(signal.SIGTERM)
        assert response.result().status_code == 200
    assert server.process.wait(timeout=30) == 0
    with pytest.raises(httpx2.ConnectError):
        server.http.get("/ping")
    assert "ready on device cpu" in server.stop()


def test_a_body_with_a_too_large_content_length_is_rejected_without_reading_it(server: Server) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 99999999999\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_invalid_arrays_are_rejected_and_the_server_keeps_running(server: Server) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    objects = np.full((1, 1, 3), {}, object)
    invalid = {
        "floats": (415, npy(rgb / 255)),
        "grey": (415, npy(rgb[..., 0])),
        "objects": (415, npy(objects)),
        "big-endian": (415, npy(rgb.astype(">u2"))),
        "claims": (413, npy(rgb).replace(b"(60, 80, 3)", b"(99999, 99999, 3)")),
        "cut short": (422, npy(rgb)[:-1]),
        "pickled": (422, pickle.dumps(rgb)),
        "empty": (400, b""),
    }
    headers = {"Content-Type": "application/x-npy", "Accept": "application/x-npy"}
    for name, (status, body) in invalid.items():
        response = server.http.post("/invocations", content=body, headers=headers)
        assert (name, response.status_code) == (name, status)
        assert response.json()["error"]["retryable"] is False
    for good in (rgb, np.asfortranarray(rgb), rgb[:1, :1]):
        response = server.http.post("/invocations", content=npy(good), headers=headers)
        assert np.load(io.BytesIO(response.content)).shape == (*good.shape[:2], 4)
    assert server.http.get("/ping").status_code == 200


def test_decoding_bombs_are_refused_or_decoded_while_other_images_are_processed(server: Server) -> None:
    def refusal(name: str) -> str:
        response = server.send(bombs.BOMBS[name]())
        return "" if response.status_code == 200 else response.json()["error"]["code"]

    with ThreadPoolExecutor(2) as pool:
        sent = {name: pool.submit(refusal, name) for name in bombs.BOMBS}
        while not all(one.done() for one in sent.values()):
            assert server.send(SMALL).status_code == 200
    codes = {name: one.result() for name, one in sent.items()}
    assert {*codes.values()} <= {"", "decoding_limit", "resolution_too_high", "unreadable_picture"}
    cheap = {"frames", "surplus_rows", "inflated_profile", "inflated_texts"}  # their expensive part is not decoded
    assert {name for name, code in codes.items() if not code} <= cheap | {"interlaced"}
    assert server.http.get("/ping").status_code == 200


def test_the_server_does_not_start_with_damaged_weights(tmp_path: Path) -> None:
    (tmp_path / "portrait.onnx").write_bytes(b"damaged")
    server = Server(tmp_path)
    assert server.process.wait(timeout=START_S) == 1
    assert "portrait.onnx" in server.stop()


def test_the_server_does_not_start_with_invalid_settings_and_names_all_of_them(tmp_path: Path) -> None:
    server = Server(tmp_path, MODEL_WORKERS="0", MODEL_DEADLINE_S="soon")
    assert server.process.wait(timeout=START_S) == 1
    logged = server.stop()
    assert "MODEL_WORKERS" in logged
    assert "MODEL_DEADLINE_S" in logged


@pytest.mark.parametrize(
    ("arguments", "status", "messages"),
    [
        (["worker", "--verbose", "often", "--visibility_s", "0"], 1, ["verbose must be", "visibility_s must be"]),
        (["serve", "--once"], 2, ["unrecognized arguments: --once"]),
    ],
)
def test_a_command_with_missing_or_invalid_arguments_names_them(
    arguments: list[str], status: int, messages: list[str]
) -> None:
    command = [sys.executable, "-m", "sagemaker_model", *arguments]
    done = subprocess.run(  # noqa: S603
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=START_S, check=False
    )
    assert done.returncode == status
    assert all(message in done.stderr for message in messages)
