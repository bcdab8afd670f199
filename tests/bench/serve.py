"""`make bench-serve`: compares `maskdrop serve` with rembg's server (`rembg s`), alternating in one run.

Both servers get the same photos at POST /api/remove from the same clients. Three pairs are compared:

- `portrait`: our engine, in four passes, and rembg's session `u2net_custom` with the same network, in one pass
- `u2netp.onnx`: this file in one pass in both, ours by the class that runs rembg's models (imported as `silueta`)
- `default`: our engine `auto`, and rembg's model `u2netp`

The network u2netp takes most of the time of an image of 1 MP, and as long in both servers. Every server has all cores
and one network thread an image. CPU time and memory are those of the process and its children. Also measures the time
from the start to the first response, a body of 22 MB, and 64 clients. Arguments: the number of rounds (default 3), and
sizes (default: all). Writes reports/bench-serve.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import httpx2
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from local.config import ROOT, LocalConfig
from local.model_server import ALLOCATOR
from sagemaker_model.weights.store import import_file, located, named
from tests.bench.interactive import Call, closed_loop
from tests.bench.machine import machine
from tests.bench.photos import jpeg
from tests.bench.rembg_venv import installed
from tests.ports import free_ports

SIDES = {"1 MP": 1000, "12 MP": 3464}
CLIENTS = (1, 4, 8)
IMAGES = {"1 MP": 24, "12 MP": 8}
"""Images of one round, shared by its clients."""

PAIRS = {"portrait": ("portrait", "u2net_custom"), "u2netp.onnx": ("silueta", "u2netp"), "default": ("auto", "u2netp")}
"""Our engine and rembg's model."""

MANY_CLIENTS = 64
START_S = 300


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row. ratio: ours / rembg's images a second, median of the rounds. cpu_ms: of one image."""

    pair: str
    size: str
    clients: int
    ours: float
    rembg: float
    ratio: float
    cpu_ms: float
    rembg_cpu_ms: float


class Server:
    """A server as a process. first_response_s: from its start to the first image."""

    def __init__(self, name: str, command: Sequence[str], port: int, env: Mapping[str, str], log: Path) -> None:
        self.name, self.url = name, f"http://127.0.0.1:{port}"
        with log.open("wb") as file:
            self._start = time.perf_counter()
            self.process = subprocess.Popen(command, env={**os.environ, **env}, stdout=file, stderr=file)  # noqa: S603
        self.tree = psutil.Process(self.process.pid)
        self.first_response_s = 0.0

    def wait(self, call: Call) -> None:
        """Waits for the first response with status 200. Raises RuntimeError after START_S."""
        while time.perf_counter() - self._start < START_S:
            try:
                response = httpx2.post(
                    call.url, content=call.body, headers=dict(call.headers or {}), timeout=START_S, trust_env=False
                )
                response.raise_for_status()
                self.first_response_s = time.perf_counter() - self._start
                return
            except httpx2.TransportError:
                time.sleep(0.02)
        raise RuntimeError(f"{self.name} does not respond.")

    def cpu_s(self) -> float:
        times = [one.cpu_times() for one in (self.tree, *self.tree.children(recursive=True))]
        return sum(one.user + one.system for one in times)

    def memory_mb(self) -> float:
        return sum(one.memory_info().rss for one in (self.tree, *self.tree.children(recursive=True))) / 1e6

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def call(server: Server, photo: bytes, model: str, network: Path | None = None) -> Call:
    """network: the file of rembg's session `u2net_custom`, below U2NET_HOME."""
    request = httpx2.Request(
        "POST",
        f"{server.url}/api/remove",
        params={"extras": json.dumps({"model_path": str(network)})} if network else {},
        data={"model": model},
        files={"file": ("photo.jpg", photo, "image/jpeg")},
        headers={"Accept": "*/*"},
    )
    return Call("POST", str(request.url), request.read(), dict(request.headers))


@contextmanager
def servers() -> Iterator[tuple[Server, Server, Path]]:
    """Runs our server and rembg's, both with the file u2netp.onnx; yields them and the file of portrait's network."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights, home = folder / "weights", folder / "u2net"
        weights.mkdir()
        home.mkdir()
        source = located(named("u2netp"), LocalConfig().weights)
        for path in LocalConfig().weights.iterdir():
            if path.is_file():
                (weights / path.name).write_bytes(path.read_bytes())
        (home / "u2netp.onnx").write_bytes(source.read_bytes())
        import_file(named("silueta"), source, weights, own=True)
        ours_port, rembg_port = free_ports(2)
        ours = Server(
            "maskdrop",
            [sys.executable, "-m", "cli", "serve", "--no-auth", "--port", str(ours_port), "--data", str(folder)],
            ours_port,
            {**ALLOCATOR, "MODEL_WEIGHTS_DIR": str(weights), "MODEL_NETWORK_THREADS": "1"},
            folder / "maskdrop.log",
        )
        stack.callback(ours.stop)
        first = jpeg(SIDES["1 MP"])
        ours.wait(call(ours, first, "auto"))  # each server starts alone, so that both times are comparable
        rembg = Server(
            "rembg",
            [str(installed() / "rembg"), "s", "--no-ui", "--host", "127.0.0.1", "--port", str(rembg_port)],
            rembg_port,
            {
                **ALLOCATOR,
                "BROWSER": "true",  # the program `true` instead of a browser, which rembg opens at start
                "NUMBA_CACHE_DIR": str(ROOT / ".local" / "rembg-home" / "numba"),
                "OMP_NUM_THREADS": "1",
                "U2NET_HOME": str(home),
                "MODEL_CHECKSUM_DISABLED": "1",
            },
            folder / "rembg.log",
        )
        stack.callback(rembg.stop)
        rembg.wait(call(rembg, first, "u2netp"))
        network = home / "portrait.onnx"
        script = Path(__file__).with_name("rembg_network.py")
        portrait = located(named("portrait"), weights)
        subprocess.run([installed() / "python", script, portrait, network], check=True)  # noqa: S603
        yield ours, rembg, network


def measured(
    ours: Server, rembg: Server, network: Path, pair: str, size: str, clients: int, rounds: int
) -> Measurement:
    """Alternates both servers; the first round of each is not counted."""
    photo, count = jpeg(SIDES[size]), max(1, IMAGES[size] // clients)
    engine, model = PAIRS[pair]
    custom = network if model == "u2net_custom" else None
    calls = {ours: call(ours, photo, engine), rembg: call(rembg, photo, model, custom)}
    rates: dict[Server, list[float]] = {ours: [], rembg: []}
    cpu: dict[Server, list[float]] = {ours: [], rembg: []}
    for one in calls.values():
        closed_loop(one, clients, 1)
    for _ in range(rounds):
        for server, one in calls.items():
            before, start = server.cpu_s(), time.perf_counter()
            closed_loop(one, clients, count)
            rates[server].append(clients * count / (time.perf_counter() - start))
            cpu[server].append((server.cpu_s() - before) / (clients * count) * 1000)
    ratio = statistics.median(a / b for a, b in zip(rates[ours], rates[rembg], strict=True))
    middle = statistics.median
    return Measurement(
        pair, size, clients, middle(rates[ours]), middle(rates[rembg]), ratio, middle(cpu[ours]), middle(cpu[rembg])
    )


def large_photo() -> bytes:
    """A JPEG of 22 MB: noise, which does not compress, with a few bytes after the image."""
    noise = np.random.default_rng(0).integers(0, 256, (3464, 3464, 3), dtype=np.uint8)
    quality = next(one for one in range(100, 50, -1) if len(_encoded(noise, one)) <= 22_000_000)
    return _encoded(noise, quality).ljust(22_000_000, b"\0")


def _encoded(image: np.ndarray, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def main() -> int:
    rounds, sizes = int((sys.argv[1:] or ["3"])[0]), sys.argv[2:] or list(SIDES)
    console = Console(highlight=False, width=120)
    rows: list[Measurement] = []
    facts: dict[str, float] = {}
    with servers() as (ours, rembg, network):
        for server in (ours, rembg):
            facts[f"{server.name} first response s"] = server.first_response_s
            facts[f"{server.name} memory MB after the first response"] = server.memory_mb()
        for size in sizes:
            for clients in CLIENTS:
                for pair in PAIRS if clients == 4 else ("portrait",):
                    with console.status(f"{pair}, {size}, {clients} clients"):
                        rows.append(measured(ours, rembg, network, pair, size, clients, rounds))
        photo = jpeg(SIDES["1 MP"])
        start = time.perf_counter()
        latencies = sorted(closed_loop(call(ours, photo, "portrait"), MANY_CLIENTS, 2))
        facts["64 clients images/s"] = len(latencies) / (time.perf_counter() - start)
        facts["64 clients p95 s"] = latencies[len(latencies) * 95 // 100]
        start = time.perf_counter()
        closed_loop(call(ours, large_photo(), "portrait"), 1, 1)
        facts["22 MB body, 12 MP noise s"] = time.perf_counter() - start
        for server in (ours, rembg):
            facts[f"{server.name} memory MB at the end"] = server.memory_mb()
    table = Table("pair", "size", "clients", "images/s", "rembg", "ratio", "CPU ms", "rembg CPU ms", "CPU ratio")
    for row in rows:
        cpu_ratio = row.rembg_cpu_ms / row.cpu_ms
        table.add_row(
            row.pair, row.size, str(row.clients), f"{row.ours:.2f}", f"{row.rembg:.2f}", f"{row.ratio:.2f}",
            f"{row.cpu_ms:.0f}", f"{row.rembg_cpu_ms:.0f}", f"{cpu_ratio:.2f}",
        )  # fmt: skip
    console.print(machine())
    console.print(table)
    for name, figure in facts.items():
        console.print(f"{name:45} {figure:8.1f}")
    report = {"machine": machine(), "rounds": rounds, "rows": [asdict(row) for row in rows], "facts": facts}
    path = ROOT / "reports" / "bench-serve.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
