"""Starts a model server and measures it under load from concurrent clients."""

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

from local.config import ROOT
from local.model_server import ALLOCATOR
from maskdrop.wire import CUSTOM_ATTRIBUTES
from sagemaker_model.imaging import arrays
from sagemaker_model.imaging.pixels import Pixels
from tests.bench.measure import peak_mb, tree_cpu_s
from tests.ports import free_ports

START_S = 300
"""Start-up timeout in seconds. Before the server is ready, SAM vit_b runs one image in each worker."""
TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Request:
    """One image with its options, ready to be sent."""

    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def of_jpeg(cls, photo: bytes, **options: Any) -> Request:
        """A request with a JPEG, whose response is a PNG."""
        return cls(photo, {"Content-Type": "image/jpeg", CUSTOM_ATTRIBUTES: json.dumps(options)})

    @classmethod
    def of_array(cls, rgb: Pixels, **options: Any) -> Request:
        """A request with an array, whose response is an array."""
        buffer = io.BytesIO()
        np.save(buffer, rgb, allow_pickle=False)
        types = {"Content-Type": arrays.CONTENT_TYPE, "Accept": arrays.CONTENT_TYPE}
        return cls(buffer.getvalue(), types | {CUSTOM_ATTRIBUTES: json.dumps(options)})


@dataclass(frozen=True, slots=True)
class Rate:
    """Rate of `clients` concurrent clients in a closed loop.

    p50_ms, p95_ms: latencies of status 200. cpu_ms: CPU milliseconds of the server for an image. client_cpu: share of
    one core that the clients use. statuses: number of responses by status.
    """

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
        """Sends a request; returns the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        try:
            return _exchange(connection, request)
        finally:
            connection.close()

    def rate(self, request: Request, clients: int, seconds: float) -> Rate:
        """Measures clients that each send requests one after the other over one connection, at least one each.

        seconds: duration.
        """
        until = time.perf_counter() + seconds

        def loop(_: int) -> list[tuple[int, float]]:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
            responses: list[tuple[int, float]] = []
            while time.perf_counter() < until or not responses:
                start = time.perf_counter()
                responses.append((_exchange(connection, request), time.perf_counter() - start))
            connection.close()
            return responses

        start, cpu, client_cpu = time.perf_counter(), self._cpu_s, time.process_time()
        with ThreadPoolExecutor(clients) as pool:
            responses = [response for batch in pool.map(loop, range(clients)) for response in batch]
        wall, cpu = time.perf_counter() - start, self._cpu_s - cpu
        client_cpu = time.process_time() - client_cpu
        latencies = [seconds for status, seconds in responses if status == 200]
        p50, p95 = np.percentile(latencies, (50, 95)) * 1000 if latencies else (np.nan, np.nan)
        statuses = Counter(status for status, _ in responses)
        cpu_ms = cpu / len(responses) * 1000
        return Rate(clients, len(latencies) / wall, float(p50), float(p95), cpu_ms, client_cpu / wall, statuses)

    def metric(self, name: str) -> float:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return next(float(line.split()[-1]) for line in lines if line.startswith(f"{name} "))

    @property
    def _cpu_s(self) -> float:
        return tree_cpu_s(self.process.pid)

    @property
    def peak_mb(self) -> float:
        """Peak memory in megabytes since the start or `reset_peak` of its process, without the decoder processes."""
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
    """Outcome of more clients than queue places.

    done: responses with status 200. refused: responses with status 503. waiting_max: maximum of the queue metric.
    """

    places: int
    clients: int
    done: int
    refused: int
    waiting_max: float


def overload(running: Server, request: Request, places: int, clients: int, seconds: float) -> Overload:
    """Measures a server that was started with `queue_max` = `places`."""
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
    """Runs a model server; settings become MODEL_<NAME>. Raises RuntimeError if it does not start."""
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
    response = connection.getresponse()
    response.read()
    return response.status
