"""`make bench-engines`: measures every engine alone and through the server, and its share of the device's roofline.

Writes docs/performance.md and its plots. If torch is installed, engines without weights get random ones. The page lists
what could not be measured. Figures of one run are comparable; on a shared machine only their ratios are.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import cv2

from local.config import ROOT
from local.model_server import ALLOCATOR
from maskdrop.catalog import ENGINES
from maskdrop.errors import MaskdropError
from sagemaker_model.device import choose_device
from tests.bench import network, prompts, random_weights, server_overhead, single_image
from tests.bench.measure import SECONDS, cores, reset_peak
from tests.bench.page import SERVED_SIDE, Report, Served, write
from tests.bench.photos import jpeg
from tests.bench.served import Rate, Request, Server, overload, server

T = TypeVar("T")

WEIGHTS = ROOT / ".local" / "weights"

CLIENTS = (1, 4, 16, 32, 64)

PLACES = 8
"""Queue places of the server in the overload test."""

ROUND_S = 12.0
"""Longest time in seconds of one image for each client; larger numbers of clients are skipped for a slow engine."""


def main() -> int:
    cv2.setNumThreads(1)
    report = Report(device=choose_device("auto", require_gpu=False))
    (ROOT / ".local").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".local") as scratch:
        weights, by_torch = (Path(scratch) / name for name in ("weights", "by_torch"))
        weights.mkdir()
        by_torch.mkdir()
        _log("weights")
        made = _try(report, "random weights", lambda: random_weights.complete(WEIGHTS, weights, report.device))
        report.random_weights = made or []
        for name in ENGINES:
            _log(f"{name} alone")
            rows = _try(report, f"`{name}`", partial(single_image.measured, name, report.device, weights))
            if rows == []:
                report.missing[f"`{name}`"] = "its weights, or the packages that run them, are not installed."
            report.timings += rows or []
        _log("networks by batch and precision")
        report.networks = _try(report, "Networks alone", lambda: network.measured(report.device, weights))
        prompts.without_onnx(weights, by_torch)
        for name, (engine, folder) in prompts.engines(report.device, weights, by_torch).items():
            _log(f"first and second prompt: {name}")
            measurement = _try(
                report,
                f"Prompts, {name}",
                partial(prompts.measured, name, engine, report.device, folder),
            )
            report.prompts += [measurement] if measurement else []
        _log("the server")
        with server(weights) as running:
            report.server_mb = running.peak_mb
            for name in dict.fromkeys(row.engine for row in report.timings):
                report.served += _served(running, name, next(row for row in report.timings if row.engine == name))
            _log("server overhead")
            overhead = server_overhead.of_arrays(running, report.device, weights)
            report.overhead = [server_overhead.of_files(running, weights), *([overhead] if overhead else [])]
        _log("overload")
        with server(WEIGHTS, queue_max=str(PLACES)) as running:
            photo = Request.of_jpeg(jpeg(server_overhead.ARRAY_SIDE))
            report.overload = overload(running, photo, PLACES, server_overhead.CLIENTS, SECONDS * 2)
    if report.device != "cuda":
        report.missing["A GPU"] = (
            "none on this machine. The same command measures there MODNet and the encoders of SAM 2.1 tiny, SAM vit_b "
            "and vit_h in float32, bfloat16 and float16 by batch, their share of the roofline and the energy of an "
            "image, and batches shared by requests through the server."
        )
    for path in write(report):
        _log(f"wrote {path.relative_to(ROOT)}")
    return 0


def _try(report: Report, name: str, measure: Callable[[], T]) -> T | None:
    """Runs a measurement; adds the reason to `report.missing` and returns None if it is impossible here."""
    try:
        return measure()
    except ModuleNotFoundError as error:
        report.missing[name] = f"{error.name} is not installed; `make bench-engines` has an environment with it."
    except MaskdropError as error:
        report.missing[name] = error.message
    return None


def _served(running: Server, name: str, timing: single_image.EngineTiming) -> list[Served]:
    """Rates of requests from JPEG to PNG, by number of clients."""
    options = single_image.options(name, SERVED_SIDE).to_json()
    request = Request.of_jpeg(jpeg(SERVED_SIDE), engine=name, prompt=options["prompt"])
    running.send(request)  # fills SAM's embedding cache
    reset_peak(running.process.pid)
    rates: list[Rate] = []
    for clients in CLIENTS:
        if clients * timing.whole_ms / 1000 / cores() < ROUND_S:
            rates.append(running.rate(request, clients, SECONDS * 2))
            _log(f"{name}, {clients} clients: {rates[-1].images_s:.1f} images/s")
    return [Served(name, rate, running.peak_mb) for rate in rates]


def _log(message: str) -> None:
    print(f"{message} (load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    # Measures with the server's allocator settings. glibc reads them when the process starts.
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.engines"], os.environ | ALLOCATOR)  # noqa: S606
    sys.exit(main())
