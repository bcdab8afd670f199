"""rembg's own HTTP server with our network as its session, beside our bare model server and beside rembg's call to our
API: the same photo and the same clients, in turns in one run.

The weights are the same, and more is done with them here. rembg looks once, enlarges the matte and multiplies. We look
at the image, at the people's box and at its mirror image (at this photo, whose box is all of it, twice), the matte
follows the image's edges, and what is half transparent gets the subject's own colours. Both decode the JPEG and write
the whole image as a PNG.

Both servers have all cores and the same settings of the allocator, which spare rembg 4 % of its CPU. Ours has its
defaults: a worker a core, one thread each for the network. rembg has one thread for the network too and as many
images at once as it likes: on two cores two threads, or OMP_NUM_THREADS not set, take 7 to 20 % more CPU an image,
and 2, 4 or any number at once (`--threads`) make no difference.
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
from local.processes import Program
from local.sagemaker import ALLOCATOR
from local.stack import Stack
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights import store as weights
from tests.bench.now import CLIENTS, Call, closed_loop
from tests.bench.rembg_venv import installed
from tests.ports import free_ports

TURNS = 5
CALLS = 4
"""Of each client in each turn, to each of the three."""

IOU_MIN = 0.985
"""The second look alone takes the IoU of both results to 0.990; weights that are given RGB as rembg normalizes it, not
folded, come to 0.984."""

START_S = 180
"""rembg compiles its matting when it is imported for the first time: 40 s."""


@dataclass(frozen=True, slots=True)
class Rates:
    """images/s that `clients` got of each. ratio: bare / rembg, the median of the turns."""

    clients: int
    rembg: float
    bare: float
    whole: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of two alphas. iou: of what is at least half opaque, 0..1. difference: the mean, in levels of 255."""

    iou: float
    difference: float

    @classmethod
    def of(cls, one: Pixels, other: Pixels) -> Agreement:
        """Each HxW uint8."""
        a, b = one >= 128, other >= 128
        union = np.count_nonzero(a | b)
        iou = np.count_nonzero(a & b) / union if union else 1.0
        return cls(iou, float(np.abs(one.astype(int) - other).mean()))


@dataclass(frozen=True, slots=True)
class Beside:
    """cpu_ms: of one image, rembg's server and our bare one."""

    rates: tuple[Rates, ...]
    cpu_ms: tuple[float, float]
    agreement: Agreement


def measured(config: LocalConfig, here: Stack, photo: bytes) -> Beside:
    """Raises RuntimeError for answers that are not 200 or not the same within IOU_MIN."""
    with _rembg(config) as (url, network):
        theirs = _call(url, photo, network=network)
        bare = Call("POST", f"{here.model_url}/invocations", photo, {"Content-Type": "image/jpeg"})
        whole = _call(here.api_url, photo, api_key=here.api_key)
        agreement = Agreement.of(_alpha(bare), _alpha(theirs))
        if agreement.iou < IOU_MIN:
            raise RuntimeError(f"rembg finds something else: IoU {agreement.iou:.3f}, at least {IOU_MIN} was expected.")
        rates = tuple(_rates(clients, theirs, bare, whole) for clients in CLIENTS)
        return Beside(rates, (_cpu_ms("rembg", config, theirs), _cpu_ms("model", config, bare)), agreement)


def _rates(clients: int, *calls: Call) -> Rates:
    for call in calls:
        closed_loop(call, clients, 1)
    turns = []
    for _ in range(TURNS):
        rates = []
        for call in calls:
            began = time.perf_counter()
            closed_loop(call, clients, CALLS)
            rates.append(clients * CALLS / (time.perf_counter() - began))
        turns.append(rates)
    rembg, bare, whole = (statistics.median(rates) for rates in zip(*turns, strict=True))
    return Rates(clients, rembg, bare, whole, statistics.median(turn[1] / turn[0] for turn in turns))


def _cpu_ms(name: str, config: LocalConfig, call: Call) -> float:
    """CPU milliseconds of the program `name` for one image, with two clients: waiting for the other costs none."""
    process = processes.find(name, config.state)
    if process is None:
        raise RuntimeError(f"{name} is not running.")
    before = process.cpu_times()
    pictures = len(closed_loop(call, 2, CALLS * TURNS))
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / pictures * 1000


def _call(url: str, photo: bytes, *, network: Path | None = None, api_key: str = "") -> Call:
    """rembg's POST /api/remove. network: the file for its session `u2net_custom`; None for what `model` is there."""
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
    """HxW uint8, of the PNG that answers."""
    answer = httpx2.post(call.url, content=call.body, headers=call.headers, timeout=START_S, trust_env=False)
    if answer.status_code != 200:
        raise RuntimeError(f"{call.url} answered {answer.status_code}: {answer.text[:300]}")
    with Image.open(io.BytesIO(answer.content)) as opened:
        return np.asarray(opened.getchannel("A"))


@contextmanager
def _rembg(config: LocalConfig) -> Iterator[tuple[str, Path]]:
    """Its address, and the file of our network for it, below U2NET_HOME as it wants it. Nothing is downloaded."""
    programs, home = installed(), ROOT / ".local" / "rembg-home"
    home.mkdir(exist_ok=True)
    network = home / "portrait.onnx"
    source = weights.located(weights.named("portrait"), config.weights)
    fold = Path(__file__).with_name("rembg_network.py")
    subprocess.run([programs / "python", fold, source, network], check=True)  # noqa: S603
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
            "BROWSER": "true",  # the program of that name: it shows itself when it starts
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
