"""`make bench-peers`: compares Maskdrop with two libraries on a 12 MP photo: rembg and @imgly/background-removal-node.

    python -m tests.bench.peers [--images N] [--rounds N] [--skip-imgly]

Both of a pair alternate in one run. With the same network output, Maskdrop and rembg differ in the stages around the
network: decoding, enlarging, edge colours, encoding. With the same file u2netp.onnx, they also differ in the passes of
the network. The npm package runs its own IS-Net.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from local.config import ROOT, LocalConfig
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompts
from sagemaker_model.cutout import cut_out, subject_of
from sagemaker_model.engines.base import Alpha, Engine
from sagemaker_model.engines.u2netp import U2Netp
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.imaging.refine import to_full_size
from sagemaker_model.settings import ServerSettings
from tests.bench.machine import machine
from tests.bench.measure import tree_cpu_s
from tests.bench.rembg_venv import installed

SIZE = (4000, 3000)
THREADS = os.cpu_count() or 1
IMAGES, ROUNDS = 4, 5
"""Images in each round, and rounds; the result is the median of the rounds."""

FOLDER, IMGLY_FOLDER = ROOT / ".local" / "peers", ROOT / ".local" / "imgly"

IMGLY = {
    "private": True,
    "type": "module",
    "dependencies": {"@imgly/background-removal-node": "1.4.5"},
    "overrides": {"sharp": "0.33.5"},
}
"""package.json. sharp 0.33 has its binaries on npm; the older one of the package downloads them from GitHub."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A synthetic photo with known alpha and colours of the subject, and the matte of an ideal network.

    photo: JPEG. alpha: HxW, 0..1. colours: HxWx3, 0..255. matte: 256x256, 0..1.
    """

    photo: bytes
    alpha: np.ndarray
    colours: np.ndarray
    matte: np.ndarray


def scene() -> Scene:
    """A bright disc with stripes and a soft edge on green noise, 12 MP; the matte is its alpha at 256 x 256."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32) / height
    alpha = np.clip((0.35 - np.hypot(x - width / height / 2, y - 0.5)) / 0.02 + 0.5, 0, 1)
    colours = np.dstack((220 + 30 * np.sin(60 * x), 150 + 20 * y, 120 + 60 * x)).clip(0, 255)
    noise = np.random.default_rng(0).integers(0, 60, (height // 8, width // 8), np.uint8)
    leaves = cv2.resize(noise, SIZE).astype(np.float32)
    back = np.dstack((leaves, 120 + leaves, leaves))
    image = alpha[..., None] * colours + (1 - alpha[..., None]) * back
    grain = np.random.default_rng(1).normal(0, 4, (height, width, 1)).astype(np.float32)  # sensor noise, about ISO 400
    image = (image + grain).clip(0, 255)
    buffer = io.BytesIO()
    Image.fromarray(image.round().astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return Scene(buffer.getvalue(), alpha, colours, cv2.resize(alpha, (256, 256), interpolation=cv2.INTER_AREA))


class FixedMatte:
    """An engine that returns a fixed matte."""

    weights_sha256 = ""

    def __init__(self, matte: np.ndarray) -> None:
        self._matte = matte

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None: ...

    def predict(self, rgb: np.ndarray, prompts: Prompts) -> Alpha:
        return Alpha(self._matte)


STAGES: dict[str, Callable[..., Any]] = {
    "decode": decode,
    "refine": to_full_size,
    "subject": subject_of,
    "foreground": estimate_foreground,
    "encode": encode,
}


def stages(reference: Scene, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of each stage of Maskdrop and of all stages, on one thread."""
    runs: dict[str, list[float]] = {name: [] for name in (*STAGES, "total")}

    def timed(name: str, *args: Any) -> Any:
        start = time.thread_time()
        result = STAGES[name](*args)
        runs[name].append((time.thread_time() - start) * 1000)
        return result

    for _ in range(rounds):
        start = time.thread_time()
        rgb = timed("decode", reference.photo, ServerSettings().limits).rgb
        alpha = timed("refine", reference.matte, rgb)
        timed("subject", alpha)
        timed("encode", timed("foreground", rgb, alpha), alpha, Output(), None, {})
        runs["total"].append((time.thread_time() - start) * 1000)
    return {name: statistics.median(times) for name, times in runs.items()}


def ours(photo: bytes, engine: Engine, pool: ThreadPoolExecutor, images: int) -> tuple[float, bytes]:
    """Seconds that Maskdrop takes for that many cut-outs, and the last result as PNG."""
    limits = ServerSettings().limits
    options = Options(engine="u2netp") if isinstance(engine, U2Netp) else Options()
    start = time.perf_counter()
    results = list(pool.map(lambda _: cut_out(photo, options, engine, limits), range(images)))
    return time.perf_counter() - start, results[-1].data


@dataclass(frozen=True, slots=True)
class Measured:
    """Images a second of a library and of Maskdrop, the median ratio of both in one round, and Maskdrop's last PNG.

    cpu_ratio: of the CPU times, which depend less on other programs than the seconds do.
    """

    theirs: float
    mine: float
    ratio: float
    cpu_ratio: float
    result: bytes


def alternate(
    command: Sequence[str | Path], mine: Callable[[int], tuple[float, bytes]], images: int, rounds: int
) -> Measured:
    """Runs a worker and Maskdrop in turns. The first round is the warm-up."""
    environment = {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        "NUMBA_CACHE_DIR": str(FOLDER / "numba"),
        "U2NET_HOME": str(LocalConfig.from_env(os.environ).weights),  # rembg opens no file elsewhere
    }
    pipe = subprocess.PIPE
    # The npm package looks for its files in node_modules of the current folder.
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=IMGLY_FOLDER) as other:  # noqa: S603
        assert other.stdin
        assert other.stdout
        pairs, cpu_ratios, result = [], [], b""
        for round_number in range(rounds + 1):
            their_cpu = tree_cpu_s(other.pid)
            other.stdin.write(f"{images}\n")
            other.stdin.flush()
            theirs = float(other.stdout.readline())
            their_cpu, my_cpu = tree_cpu_s(other.pid) - their_cpu, time.process_time()
            seconds, result = mine(images)
            if round_number:
                pairs.append((seconds, theirs))
                cpu_ratios.append(their_cpu / (time.process_time() - my_cpu))
        other.stdin.close()
    return Measured(
        images / statistics.median(theirs for _, theirs in pairs),
        images / statistics.median(seconds for seconds, _ in pairs),
        statistics.median(theirs / seconds for seconds, theirs in pairs),
        statistics.median(cpu_ratios),
        result,
    )


def imgly() -> Path:
    """Installs @imgly/background-removal-node (AGPL-3.0, for this comparison only) below .local/.

    Returns the worker that runs it.
    """
    folder, worker = IMGLY_FOLDER, Path(__file__).with_name("imgly_worker.mjs")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text(json.dumps(IMGLY))
    shutil.copy(worker, folder)
    if not (folder / "node_modules").exists():
        # Without scripts: those of sharp and onnxruntime-node download files that only other versions and GPUs need.
        command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        subprocess.run(command, cwd=folder, check=True)  # noqa: S603
    return folder / worker.name


def edge_error(result: bytes, reference: Scene) -> float:
    """Mean error (0 to 255) of the result's composite on white in the soft edge, against the true composite."""
    with Image.open(io.BytesIO(result)) as opened:
        result_rgba = np.asarray(opened.convert("RGBA"), np.float32)
    band = (reference.alpha > 0.05) & (reference.alpha < 0.95)
    a = result_rgba[band][:, 3:] / 255
    shown = a * result_rgba[band][:, :3] + (1 - a) * 255
    true = reference.alpha[band][:, None] * reference.colours[band] + (1 - reference.alpha[band][:, None]) * 255
    return float(np.abs(shown - true).mean())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES, help="images in each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds after the warm-up")
    parser.add_argument("--skip-imgly", action="store_true", help="rembg only; the npm package takes 15 s an image")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    reference = scene()
    FOLDER.mkdir(parents=True, exist_ok=True)
    photo, matte = FOLDER / "photo.jpg", FOLDER / "matte.png"
    photo.write_bytes(reference.photo)
    cv2.imwrite(str(matte), np.rint(reference.matte * 255).astype(np.uint8))
    network = LocalConfig.from_env(os.environ).weights / "u2netp.onnx"
    u2netp = U2Netp()
    u2netp.setup("cpu", network.parent)
    python, worker = installed() / "python", Path(__file__).with_name("rembg_worker.py")

    def rembg(source: Path, **options: Any) -> list[str | Path]:
        return [python, worker, source, photo, json.dumps({**options, "threads": THREADS})]

    fixed = FixedMatte(reference.matte)
    runs: list[tuple[str, list[str | Path], Engine, str, int, int]] = [
        ("rembg, same matte", rembg(matte), fixed, "rembg.png", arguments.images, arguments.rounds),
        (
            "rembg, same matte, decontaminate",
            rembg(matte, decontaminate=True),
            fixed,
            "rembg.png",
            arguments.images,
            arguments.rounds,
        ),
        ("rembg, u2netp", rembg(network), u2netp, "rembg.png", arguments.images, arguments.rounds),
    ]
    if not arguments.skip_imgly:
        runs.append(("imgly, its IS-Net", ["node", imgly(), photo], u2netp, "imgly.png", 1, 1))
    table = Table("library", "images/s", "maskdrop", "maskdrop / library", "by CPU time", "edge error", "maskdrop's")
    with ThreadPoolExecutor(THREADS) as pool:
        for name, command, engine, file, images, rounds in runs:
            mine = partial(ours, reference.photo, engine, pool)
            measured = alternate(command, mine, images, rounds)
            errors = (edge_error(png, reference) for png in ((FOLDER / file).read_bytes(), measured.result))
            rates = (
                f"{measured.theirs:.2f}",
                f"{measured.mine:.2f}",
                f"{measured.ratio:.2f}",
                f"{measured.cpu_ratio:.2f}",
            )
            table.add_row(name, *rates, *(f"{error:.1f}" for error in errors))
    console = Console(highlight=False, width=130)
    console.print(table)
    summary = ", ".join(f"{name} {ms:.0f}" for name, ms in stages(reference, arguments.rounds).items())
    console.print(f"CPU ms of maskdrop's stages, on one thread: {summary}.")
    console.print(
        f"12 MP JPEG to PNG, {THREADS} threads; edge error on white, of 255. imgly: one image at a time, beside "
        f"maskdrop's u2netp. {machine()}."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
