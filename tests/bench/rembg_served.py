"""Compares rembg's HTTP server with the model server alone and with the API's /api/remove, with the same network.

All three get the same photo from the same clients, alternating in one run.

The weights are the same, but Maskdrop does more with them. rembg runs the network once, enlarges the matte and
multiplies. Maskdrop runs it on the image, on the people's box and on the mirrored images (twice for this photo, whose
box is the whole image). The matte follows the image's edges, and half-transparent pixels get the subject's own colours.
Both decode the JPEG and write the whole image as a PNG.

Both servers have all cores and the same allocator settings, which save rembg 4 % of its CPU time. The model server has
its defaults: one worker on each core, one network thread each. rembg also has one network thread, and any number of
concurrent images. On two cores, two threads or an unset OMP_NUM_THREADS take 7 to 20 % more CPU an image. `--threads`
of 2, 4 or unlimited makes no difference.
"""

from __future__ import annotations

import io
import json
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
from PIL import Image

from local import processes
from local.config import HOST, ROOT, LocalConfig
from local.model_server import ALLOCATOR
from local.processes import Program
from local.stack import Stack
from sagemaker_model.evaluation.metrics import iou
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights import store as weights
from tests.bench.interactive import CLIENTS, Call, closed_loop
from tests.bench.rembg_venv import installed
from tests.ports import free_ports

ROUNDS = 5
CALLS = 4
"""Requests of each client in each round, to each of the three servers."""

IOU_MIN = 0.985
"""Lowest IoU of both results. The second pass alone lowers it to 0.990; weights that get rembg's normalized RGB without
the two nodes of `rembg_network` reach 0.984."""

START_S = 180
"""Start-up timeout in seconds. At the first import rembg compiles its matting for 40 s."""


@dataclass(frozen=True, slots=True)
class Rates:
    """images/s of each server with `clients` concurrent clients. ratio: bare / rembg, median of the rounds."""

    clients: int
    rembg: float
    bare: float
    end_to_end: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of two alphas. iou: of pixels with alpha of at least 128, 0..1. difference: mean, in levels of 255."""

    iou: float
    difference: float

    @classmethod
    def of(cls, one: Pixels, other: Pixels) -> Agreement:
        """Compares two alphas, HxW uint8 each."""
        return cls(iou(one >= 128, other >= 128), float(np.abs(one.astype(int) - other).mean()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """All measurements. cpu_ms: of one image, rembg's server and the model server alone."""

    rates: tuple[Rates, ...]
    cpu_ms: tuple[float, float]
    agreement: Agreement


def measured(config: LocalConfig, running_stack: Stack, photo: bytes) -> Comparison:
    """Measures all servers. Raises RuntimeError for a status other than 200 or an IoU below IOU_MIN."""
    with _rembg(config) as (url, network):
        theirs = _call(url, photo, network=network)
        bare = Call("POST", f"{running_stack.model_url}/invocations", photo, {"Content-Type": "image/jpeg"})
        end_to_end = _call(running_stack.api_url, photo, api_key=running_stack.api_key)
        agreement = Agreement.of(_alpha(bare), _alpha(theirs))
        if agreement.iou < IOU_MIN:
            raise RuntimeError(f"rembg's result differs: IoU {agreement.iou:.3f}, expected at least {IOU_MIN}.")
        rates = tuple(_rates(clients, theirs, bare, end_to_end) for clients in CLIENTS)
        return Comparison(rates, (_cpu_ms("rembg", config, theirs), _cpu_ms("model", config, bare)), agreement)


def _rates(clients: int, *calls: Call) -> Rates:
    for call in calls:
        closed_loop(call, clients, 1)
    rounds = []
    for _ in range(ROUNDS):
        rates = []
        for call in calls:
            start = time.perf_counter()
            closed_loop(call, clients, CALLS)
            rates.append(clients * CALLS / (time.perf_counter() - start))
        rounds.append(rates)
    rembg, bare, end_to_end = (statistics.median(rates) for rates in zip(*rounds, strict=True))
    return Rates(
        clients, rembg, bare, end_to_end, statistics.median(round_rates[1] / round_rates[0] for round_rates in rounds)
    )


def _cpu_ms(name: str, config: LocalConfig, call: Call) -> float:
    """CPU milliseconds of the program `name` for one image, measured with two clients; waiting takes no CPU time."""
    process = processes.find(name, config.state)
    if process is None:
        raise RuntimeError(f"{name} is not running.")
    before = process.cpu_times()
    images = len(closed_loop(call, 2, CALLS * ROUNDS))
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / images * 1000


def _call(url: str, photo: bytes, *, network: Path | None = None, api_key: str = "") -> Call:
    """A call to POST /api/remove. network: file for rembg's session `u2net_custom`; None for Maskdrop's `portrait`."""
    extras = {} if network is None else {"extras": json.dumps({"model_path": str(network)})}
    request = httpx2.Request(
        "POST",
        f"{url}/api/remove",
        params=extras,
        data={"model": "u2net_custom" if network else "portrait"},
        files={"file": ("photo.jpg", photo, "image/jpeg")},
        headers={"X-Api-Key": api_key, "Accept": "*/*"},
    )
    return Call("POST", str(request.url), request.read(), dict(request.headers))


def _alpha(call: Call) -> Pixels:
    """Alpha of the PNG in the response, HxW uint8."""
    response = httpx2.post(call.url, content=call.body, headers=call.headers, timeout=START_S, trust_env=False)
    if response.status_code != 200:
        raise RuntimeError(f"{call.url} returned {response.status_code}: {response.text[:300]}")
    with Image.open(io.BytesIO(response.content)) as opened:
        return np.asarray(opened.getchannel("A"))


@contextmanager
def _rembg(config: LocalConfig) -> Iterator[tuple[str, Path]]:
    """Runs rembg's server; yields its URL and the file of portrait's network below U2NET_HOME, as rembg requires.

    rembg downloads no weights.
    """
    programs, home = installed(), ROOT / ".local" / "rembg-home"
    home.mkdir(exist_ok=True)
    network = home / "portrait.onnx"
    source = weights.located(weights.named("portrait"), config.weights)
    script = Path(__file__).with_name("rembg_network.py")
    subprocess.run([programs / "python", script, source, network], check=True)  # noqa: S603
    (port,) = free_ports(1)
    program = Program(
        name="rembg",
        title="rembg's server",
        argv=(str(programs / "rembg"), "s", "--no-ui", "--host", HOST, "--port", str(port)),
        port=port,
        port_setting="",
        health="/openapi.json",
        env={
            **ALLOCATOR,
            "BROWSER": "true",  # the program `true` instead of a browser, which rembg opens at start
            "NUMBA_CACHE_DIR": str(home / "numba"),
            "OMP_NUM_THREADS": "1",
            "U2NET_HOME": str(home),
        },
    )
    try:
        processes.start(program, config.state)
        processes.wait_until_ready(program, config.state, timeout_s=START_S)
        yield f"http://{HOST}:{port}", network
    finally:
        processes.stop(program.name, config.state)
