"""`make bench-peers`: compares Maskdrop with rembg as a library on a 12 MP photo, given the same network output.

Both alternate in one run. They differ in the stages around the network: decoding, enlarging, edge colours, encoding.
"""

from __future__ import annotations

import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from local.config import ROOT
from maskdrop.options import Options
from maskdrop.output import Output
from maskdrop.prompt import Prompts
from sagemaker_model.cutout import cut_out, subject_of
from sagemaker_model.engines.base import Alpha
from sagemaker_model.imaging.encode import encode
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.imaging.refine import to_full_size
from sagemaker_model.settings import ServerSettings
from tests.bench.machine import machine
from tests.bench.rembg_venv import installed

SIZE = (4000, 3000)
THREADS = os.cpu_count() or 1
IMAGES, ROUNDS = 4, 5
"""Images in each round, and rounds; the result is the median of the rounds."""

VARIANTS: dict[str, dict[str, Any]] = {"rembg": {}, "rembg, decontaminate": {"decontaminate": True}}


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


def stages(reference: Scene) -> dict[str, float]:
    """Median CPU milliseconds of each stage of Maskdrop and of all stages, on one thread."""
    runs: dict[str, list[float]] = {name: [] for name in (*STAGES, "total")}

    def timed(name: str, *args: Any) -> Any:
        start = time.thread_time()
        result = STAGES[name](*args)
        runs[name].append((time.thread_time() - start) * 1000)
        return result

    for _ in range(ROUNDS):
        start = time.thread_time()
        rgb = timed("decode", reference.photo, ServerSettings().limits).rgb
        alpha = timed("refine", reference.matte, rgb)
        timed("subject", alpha)
        timed("encode", timed("foreground", rgb, alpha), alpha, Output(), None, {})
        runs["total"].append((time.thread_time() - start) * 1000)
    return {name: statistics.median(times) for name, times in runs.items()}


def ours(reference: Scene, pool: ThreadPoolExecutor) -> tuple[float, bytes]:
    """Seconds that Maskdrop takes for IMAGES cut-outs, and the last result as PNG."""
    engine, limits = FixedMatte(reference.matte), ServerSettings().limits
    start = time.perf_counter()
    results = list(pool.map(lambda _: cut_out(reference.photo, Options(), engine, limits), range(IMAGES)))
    return time.perf_counter() - start, results[-1].data


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
    cv2.setNumThreads(1)
    reference, folder = scene(), ROOT / ".local" / "peers"
    folder.mkdir(parents=True, exist_ok=True)
    photo, matte = folder / "photo.jpg", folder / "matte.png"
    photo.write_bytes(reference.photo)
    cv2.imwrite(str(matte), np.rint(reference.matte * 255).astype(np.uint8))
    worker = Path(__file__).with_name("rembg_worker.py")
    table = Table("library", "images/s", "maskdrop / rembg", "edge error on white, of 255")
    with ThreadPoolExecutor(THREADS) as pool:
        ours(reference, pool)
        for name, options in VARIANTS.items():
            options_json = json.dumps({**options, "threads": THREADS})
            with subprocess.Popen(  # noqa: S603
                [installed() / "python", worker, matte, photo, options_json],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(folder / "numba")},
            ) as other:
                assert other.stdin
                assert other.stdout
                pairs, result = [], b""
                for round_number in range(ROUNDS + 1):
                    other.stdin.write(f"{IMAGES}\n")
                    other.stdin.flush()
                    theirs = float(other.stdout.readline())
                    mine, result = ours(reference, pool)
                    if round_number:  # the first round is the warm-up
                        pairs.append((mine, theirs))
                other.stdin.close()
            rate = IMAGES / statistics.median(theirs for _, theirs in pairs)
            ratio = statistics.median(theirs / mine for mine, theirs in pairs)
            error = edge_error((folder / "rembg.png").read_bytes(), reference)
            table.add_row(name, f"{rate:.2f}", f"{ratio:.2f}", f"{error:.1f}")
            rate = IMAGES / statistics.median(mine for mine, _ in pairs)
        table.add_row("maskdrop", f"{rate:.2f}", "", f"{edge_error(result, reference):.1f}")
    console = Console(highlight=False, width=110)
    console.print(table)
    summary = ", ".join(f"{name} {ms:.0f}" for name, ms in stages(reference).items())
    console.print(f"CPU ms of maskdrop's stages, on one thread: {summary}.")
    console.print(f"12 MP JPEG to PNG, {THREADS} threads, the same 256 x 256 matte. {machine()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
