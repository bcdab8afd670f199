"""A model server of its own, and clients that keep it busy."""

from __future__ import annotations

import http.client
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from local.config import ROOT
from local.sagemaker import ALLOCATOR
from maskdrop.wire import CUSTOM_ATTRIBUTES
from sagemaker_model.imaging import arrays
from sagemaker_model.imaging.pixels import Pixels
from tests.bench.measure import peak_mb
from tests.ports import free_ports

START_S = 300
"""SAM vit_b sees an image a worker before the server is ready."""
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Request:
    """One image with its options, ready to be sent."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of_jpeg(cls, photo: bytes, **options: Any) -> Request:
        return cls(photo, {"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: json.dumps(options)})

    @classmethod
    def of_array(cls, rgb: Pixels, **options: Any) -> Request:
        """Decoded, and answered so."""
        to = io.BytesIO()
        np.save(to, rgb, allow_pickle=False)
        types = {"Content-Type": arrays.CONTENT_TYPE, "Accept": arrays.CONTENT_TYPE}
        return cls(to.getvalue(), types | {CUSTOM_ATTRIBUTES: json.dumps(options)})


@dataclass(frozen=True, slots=True)
class Rate:
    """What `clients` got in a closed loop. cpu_ms: of the server, an image. client_cpu: seconds of one core that the
    clients took each second; the server has the others."""

    clients: int
    images_s: float
    p50_ms: float
    p95_ms: float
    cpu_ms: float
    client_cpu: float
    statuses: Mapping[int, int]


class Server:
    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    def send(self, request: Request) -> int:
        """The status of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            return _exchange(connection, request)
        finally:
            connection.close()

    def rate(self, request: Request, clients: int, seconds: float) -> Rate:
        """Every client sends its next image when it has its last, over one connection, for so long and at least
        once."""
        until = time.perf_counter() + seconds

        def loop(_: int) -> list[tuple[int, float]]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
            answers: list[tuple[int, float]] = []
            while time.perf_counter() < until or not answers:
                began = time.perf_counter()
                answers.append((_exchange(connection, request), time.perf_counter() - began))
            connection.close()
            return answers

        began, cpu, own = time.perf_counter(), self._cpu_s, time.process_time()
        with ThreadPoolExecutor(clients) as pool:
            answers = [one for answered in pool.map(loop, range(clients)) for one in answered]
        wall, cpu, own = time.perf_counter() - began, self._cpu_s - cpu, time.process_time() - own
        done = [taken for status, taken in answers if status == 200]
        p50, p95 = np.percentile(done, (50, 95)) * 1000 if done else (np.nan, np.nan)
        statuses = Counter(status for status, _ in answers)
        each = cpu / len(answers) * 1000
        return Rate(clients, len(done) / wall, float(p50), float(p95), each, own / wall, statuses)

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    @property
    def _cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    @property
    def peak_mb(self) -> float:
        """Since it started, or `forget_peak` of its process."""
        return peak_mb(self.process.pid)

    @property
    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Overload:
    """What more clients than places met. waiting_max: of the server's metric, asked again and again meanwhile."""

    places: int
    clients: int
    done: int
    refused: int
    waiting_max: float


def overload(running: Server, request: Request, places: int, clients: int, seconds: float) -> Overload:
    """`running` was started with `queue_max` = `places`."""
    seen = [0.0]
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            seen.append(running.metric("maskdrop_queue_pictures"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        rate = running.rate(request, clients, seconds)
    finally:
        ended.set()
        watching.join()
    return Overload(places, clients, rate.statuses[200], rate.statuses[503], max(seen))


@contextmanager
def server(weights: Path, **settings: str) -> Iterator[Server]:
    """With these settings besides, as MODEL_<NAME>. Raises RuntimeError when it does not start."""
    (port,) = free_ports(1)
    env = {
        "PATH": os.environ["PATH"],
        **ALLOCATOR,
        "AWS_DEFAULT_REGION": "us-east-1",
        "MODEL_PORT": str(port),
        "MODEL_WEIGHTS_DIR": str(weights),
        **{f"MODEL_{name.upper()}": value for name, value in settings.items()},
    }
    argv = [sys.executable, "-m", "sagemaker_model", "serve"]
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)  # noqa: S603
    running = Server(port, process)
    try:
        deadline = time.monotonic() + START_S
        while not running.is_ready:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("The model server did not start.")
            time.sleep(0.1)
        yield running
    finally:
        process.terminate()
        process.wait()


def _exchange(connection: http.client.HTTPConnection, request: Request) -> int:
    connection.request("POST", "/invocations", request.body, dict(request.headers))
    answer = connection.getresponse()
    answer.read()
    return answer.status
