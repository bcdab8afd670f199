"""`make bench-engines`: what each engine does on this machine, alone and through the server, and how near to the
device's ceilings.

Writes docs/performance.md and its plots. Engines without weights here get random ones, where torch is installed to make
them; what could not be measured is named. Figures of one run may be compared with one another; on a shared machine,
only their ratios.
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
from local.sagemaker import ALLOCATOR
from maskdrop.catalog import ENGINES
from maskdrop.errors import MaskdropError
from sagemaker_model.device import choose_device
from tests.bench import alone, beside, network, prompts, random_weights
from tests.bench.measure import SECONDS, cores, forget_peak
from tests.bench.page import SERVED_SIDE, Report, Served, write
from tests.bench.photos import jpeg
from tests.bench.served import Rate, Request, Server, overload, server

T = TypeVar("T")

WEIGHTS = ROOT / ".local" / "weights"

CLIENTS = (1, 4, 16, 32, 64)

PLACES = 8
"""Of the server that is given too much."""

ROUND_S = 12.0
"""Of one image for each client, at most: more clients of a slow engine are left out."""


def main() -> int:
    cv2.setNumThreads(1)
    report = Report(device=choose_device("auto", require_gpu=False))
    (ROOT / ".local").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".local") as scratch:
        weights, by_torch = (Path(scratch) / name for name in ("weights", "by_torch"))
        weights.mkdir()
        by_torch.mkdir()
        _say("weights")
        made = _tried(report, "random weights", lambda: random_weights.complete(WEIGHTS, weights, report.device))
        report.random_weights = made or []
        for name in ENGINES:
            _say(f"{name} alone")
            rows = _tried(report, f"`{name}`", partial(alone.measured, name, report.device, weights))
            if rows == []:
                report.missing[f"`{name}`"] = "its weights, or the packages that run them, are not here."
            report.alone += rows or []
        _say("networks by batch and precision")
        report.networks = _tried(report, "Networks alone", lambda: network.measured(report.device, weights))
        prompts.without_onnx(weights, by_torch)
        for name, (engine, folder) in prompts.engines(report.device, weights, by_torch).items():
            _say(f"first and second prompt: {name}")
            found = _tried(
                report,
                f"Prompts, {name}",
                partial(prompts.measured, name, engine, report.device, folder),
            )
            report.prompts += [found] if found else []
        _say("the server")
        with server(weights) as running:
            report.server_mb = running.peak_mb
            for name in dict.fromkeys(row.engine for row in report.alone):
                report.served += _served(running, name, next(row for row in report.alone if row.engine == name))
            _say("the server beside its work")
            of_arrays = beside.decoded(running, report.device, weights)
            report.beside = [beside.whole(running, weights), *([of_arrays] if of_arrays else [])]
        _say("a full server")
        with server(WEIGHTS, queue_max=str(PLACES)) as running:
            photo = Request.of_jpeg(jpeg(beside.DECODED_SIDE))
            report.overload = overload(running, photo, PLACES, beside.CLIENTS, SECONDS * 2)
    if report.device != "cuda":
        report.missing["A GPU"] = (
            "this machine has none. On a GPU the same command measures MODNet and the encoders of SAM 2.1 tiny, SAM "
            "vit_b and vit_h in float32, bfloat16 and float16, by batch size. It also measures their share of the "
            "roofline, the energy per image, and batches of several requests through the server."
        )
    for path in write(report):
        _say(f"wrote {path.relative_to(ROOT)}")
    return 0


def _tried(report: Report, what: str, work: Callable[[], T]) -> T | None:
    """None where it cannot be measured here, which the report then says."""
    try:
        return work()
    except ModuleNotFoundError as error:
        report.missing[what] = f"{error.name} is not installed; `make bench-engines` has an environment with it."
    except MaskdropError as error:
        report.missing[what] = error.message
    return None


def _served(running: Server, name: str, one: alone.Alone) -> list[Served]:
    """JPEG in, PNG out."""
    asked = alone.options(name, SERVED_SIDE).to_json()
    request = Request.of_jpeg(jpeg(SERVED_SIDE), engine=name, prompt=asked["prompt"])
    running.send(request)  # SAM's encoder sees it
    forget_peak(running.process.pid)
    rates: list[Rate] = []
    for clients in CLIENTS:
        if clients * one.whole_ms / 1000 / cores() < ROUND_S:
            rates.append(running.rate(request, clients, SECONDS * 2))
            _say(f"{name}, {clients} clients: {rates[-1].images_s:.1f} images/s")
    return [Served(name, rate, running.peak_mb) for rate in rates]


def _say(what: str) -> None:
    print(f"{what} (load {os.getloadavg()[0]:.1f})", flush=True)


if __name__ == "__main__":
    # What is measured alone has the allocator that the server has. glibc reads its settings when a process begins.
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "tests.bench.engines"], os.environ | ALLOCATOR)  # noqa: S606
    sys.exit(main())
