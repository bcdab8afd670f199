"""`make bench-engines`: what each engine of the catalogue does on this machine, and how near to the machine's ceilings.

Writes docs/performance.md and its plot. An engine without weights here, and a GPU that is not there, are named as not
measured. Figures of one run may be compared with one another; on a shared machine, only their ratios.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import httpx2
import matplotlib
import numpy as np

from local.config import ROOT
from maskdrop.catalog import ENGINES
from maskdrop.options import Options
from maskdrop.prompt import Prompt
from maskdrop.wire import CUSTOM_ATTRIBUTES
from sagemaker_model.cutout import cut_out
from sagemaker_model.device import choose
from sagemaker_model.engines.base import Engine, load
from sagemaker_model.pixels import decode
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights import InvalidWeights
from tests.bench.machine import Ceilings, ceilings, machine
from tests.bench.photos import jpeg
from tests.ports import free_ports

matplotlib.use("Agg")

SIDES = (512, 1000, 3464)
"""0.26, 1 and 12 MP."""

CLIENTS = (1, 4, 16, 64)
SERVED_SIDE = 1000

SECONDS = float(os.environ.get("BENCH_SECONDS", "4"))
"""Of each measurement, at least; and at least three runs."""

WEIGHTS = ROOT / ".local" / "weights"
PAGE = ROOT / "docs" / "performance.md"
PLOT = ROOT / "docs" / "images" / "performance.png"


@dataclass(frozen=True, slots=True)
class Alone:
    """One engine on one size, one thread. Milliseconds: medians."""

    engine: str
    side: int
    predict_ms: float
    whole_ms: float
    stages: dict[str, float]
    megabytes: float


@dataclass(frozen=True, slots=True)
class Served:
    engine: str
    clients: int
    images_s: float
    p50_ms: float
    p95_ms: float


def measured(work: Callable[[], Any]) -> list[float]:
    """Seconds of each run: one to warm up, then at least three and for SECONDS."""
    work()
    runs: list[float] = []
    while len(runs) < 3 or sum(runs) < SECONDS:
        began = time.perf_counter()
        work()
        runs.append(time.perf_counter() - began)
    return runs


def alone(name: str, engine: Engine, side: int) -> Alone:
    """An engine that takes points gets one; what it keeps of a picture is kept, so it is its second prompt's time."""
    photo, limits = jpeg(side), ServerSettings().limits
    rgb = decode(photo, limits).rgb
    middle = (Prompt(points=((rgb.shape[1] / 2, rgb.shape[0] / 2, 1),)),)
    options = Options(engine=name, prompts=middle if "points" in ENGINES[name].prompts else ())
    predict = statistics.median(measured(lambda: engine.predict(rgb, options.prompts)))
    timings: list[dict[str, float]] = []
    whole = statistics.median(measured(lambda: timings.append(cut_out(photo, options, engine, limits).timings)))
    stages = {stage: statistics.median(one[stage] for one in timings) for stage in timings[0]}
    return Alone(name, side, predict * 1000, whole * 1000, stages, resident_mb())


def resident_mb() -> float:
    return next(
        int(line.split()[1]) / 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


@contextmanager
def server() -> Any:
    """A model server of its own; its address."""
    (port,) = free_ports(1)
    env = {
        "PATH": os.environ["PATH"],
        "MALLOC_ARENA_MAX": "2",
        "MODEL_PORT": str(port),
        "MODEL_WEIGHTS_DIR": str(WEIGHTS),
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    argv = [sys.executable, "-m", "sagemaker_model", "serve"]
    process = subprocess.Popen(argv, cwd=ROOT, env=env, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as client:
            deadline = time.monotonic() + 60
            while not _is_ready(client):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("The model server did not start.")
                time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        process.wait()


def _is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/ping").status_code == 200
    except httpx2.TransportError:
        return False


def served(client: httpx2.Client, name: str, clients: int) -> Served:
    """Closed loop: every client sends its next picture when it has its last."""
    photo = jpeg(SERVED_SIDE)
    headers = {"content-type": "image/jpeg", CUSTOM_ATTRIBUTES: f'{{"engine": "{name}"}}'}
    until = time.perf_counter() + SECONDS * 2

    def loop(_: int) -> list[float]:
        times = []
        while time.perf_counter() < until or not times:
            began = time.perf_counter()
            client.post("/invocations", content=photo, headers=headers).raise_for_status()
            times.append(time.perf_counter() - began)
        return times

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        times = [one for own in pool.map(loop, range(clients)) for one in own]
    rate = len(times) / (time.perf_counter() - began)
    p50, p95 = np.percentile(times, (50, 95))
    return Served(name, clients, rate, float(p50) * 1000, float(p95) * 1000)


def main() -> int:
    cv2.setNumThreads(1)
    device = choose("auto", require_gpu=False)
    engines, missing = {}, {}
    for name, row in ENGINES.items():
        try:
            found = load([row], device, WEIGHTS)
        except InvalidWeights as error:
            missing[name] = error.message
            continue
        engines |= found
        if not found:
            missing[name] = "its weights, or the packages that run them, are not here."
    print(f"Device {device}; engines {', '.join(engines)}; {machine()}")
    rows = []
    for name, engine in engines.items():
        for side in SIDES:
            rows.append(alone(name, engine, side))
            print(f"{name} {side}: predict {rows[-1].predict_ms:.1f} ms, whole {rows[-1].whole_ms:.1f} ms")
    limits = ceilings()
    with server() as client:
        through = [served(client, name, clients) for name in engines for clients in CLIENTS]
    for one in through:
        print(f"{one.engine}, {one.clients} clients: {one.images_s:.1f} images/s")
    PAGE.write_text(page(device, missing, rows, through, limits))
    plot(rows, through)
    print(f"Wrote {PAGE.relative_to(ROOT)} and {PLOT.relative_to(ROOT)}")
    return 0


def page(
    device: str, missing: dict[str, str], rows: Sequence[Alone], through: Sequence[Served], limits: Ceilings
) -> str:
    stages = list(dict.fromkeys(stage for row in rows for stage in row.stages))
    lines = [
        "# Performance",
        "",
        f"Written by `make bench-engines` on {datetime.now(UTC):%Y-%m-%d}. Machine: {machine()}; device {device}.",
        "Medians of one run on a shared machine: compare figures of this page with one another, not with other pages.",
        "",
        "![Share of the stages, and images a second by clients](images/performance.png)",
        "",
        "## One picture, one thread",
        "",
        f"| engine | megapixels | predict ms | whole ms | images/s | {' | '.join(stages)} | resident MB |",
        f"|---|---|---|---|---|{'---|' * len(stages)}---|",
    ]
    for row in rows:
        shares = " | ".join(f"{row.stages.get(stage, 0) / sum(row.stages.values()):.0%}" for stage in stages)
        lines.append(
            f"| `{row.engine}` | {row.side**2 / 1e6:.2f} | {row.predict_ms:.1f} | {row.whole_ms:.1f} "
            f"| {1000 / row.whole_ms:.1f} | {shares} | {row.megabytes:.0f} |"
        )
    lines += [
        "",
        "Predict is the engine alone on decoded pixels; whole is from the JPEG's bytes to the PNG's.",
        "",
        f"## Through the server, {SERVED_SIDE**2 / 1e6:.0f} MP",
        "",
        "| engine | clients | images/s | p50 ms | p95 ms | of what the cores allow |",
        "|---|---|---|---|---|---|",
    ]
    whole = {row.engine: row.whole_ms for row in rows if row.side == SERVED_SIDE}
    cores = os.cpu_count() or 1
    for one in through:
        allowed = cores * 1000 / whole[one.engine]
        lines.append(
            f"| `{one.engine}` | {one.clients} | {one.images_s:.1f} | {one.p50_ms:.0f} | {one.p95_ms:.0f} "
            f"| {one.images_s / allowed:.0%} |"
        )
    lines += [
        "",
        f"What the cores allow: {cores} times what one thread does alone. The clients run on the same cores.",
        "",
        "## The machine's ceilings",
        "",
        f"One core, measured in this run: {limits.gflops:.0f} GFLOP/s (float32 matrix product), "
        f"{limits.gigabytes_s:.1f} GB/s (copy).",
    ]
    lines += ["", "## Not measured", ""]
    lines += [f"- `{name}`: {why}" for name, why in missing.items()]
    if device != "cuda":
        lines.append("- A GPU: none on this machine. The same command measures one where there is one.")
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Alone], through: Sequence[Served]) -> None:
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = [f"{row.engine}\n{row.side**2 / 1e6:.2g} MP" for row in rows]
    bottoms = np.zeros(len(rows))
    for stage in dict.fromkeys(stage for row in rows for stage in row.stages):
        values = np.array([row.stages.get(stage, 0) for row in rows])
        left.bar(names, values, bottom=bottoms, label=stage)
        bottoms += values
    left.set(ylabel="ms a picture, one thread", title="Stages")
    left.legend(frameon=False)
    for engine in dict.fromkeys(one.engine for one in through):
        own = [one for one in through if one.engine == engine]
        right.plot([one.clients for one in own], [one.images_s for one in own], marker="o", label=engine)
    right.set(
        xscale="log", xlabel="clients", ylabel="images/s", title=f"Through the server, {SERVED_SIDE**2 / 1e6:.0f} MP"
    )
    right.set_xticks(CLIENTS, [str(count) for count in CLIENTS])
    right.set_ylim(bottom=0)
    right.legend(frameon=False)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
