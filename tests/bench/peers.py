"""`make bench-peers`: a 12 MP photo to a cut-out beside rembg as a library, both with the same network output given, in
turns in one run. What differs is everything around the network: decoding, full size, edge colours, encoding.
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
from sagemaker_model.imaging.foreground import estimate_foreground
from sagemaker_model.imaging.pixels import decode, encode
from sagemaker_model.imaging.refine import to_full_size
from sagemaker_model.settings import ServerSettings
from tests.bench.machine import machine
from tests.bench.rembg_venv import installed

SIZE = (4000, 3000)
THREADS = os.cpu_count() or 1
PICTURES, ROUNDS = 4, 5
"""Images a turn and turns a side, of which the median is told."""

VARIANTS: dict[str, dict[str, Any]] = {"rembg": {}, "rembg, decontaminate": {"decontaminate": True}}


@dataclass(frozen=True, slots=True)
class Scene:
    """A subject of known colours before a background: its photo, and what a network would say of it."""

    photo: bytes
    alpha: np.ndarray
    colours: np.ndarray
    matte: np.ndarray


def scene() -> Scene:
    """A bright, soft-edged disc with stripes, 12 MP, before green noise; the matte is its alpha at 256 x 256."""
    width, height = SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32) / height
    alpha = np.clip((0.35 - np.hypot(x - width / height / 2, y - 0.5)) / 0.02 + 0.5, 0, 1)
    colours = np.dstack((220 + 30 * np.sin(60 * x), 150 + 20 * y, 120 + 60 * x)).clip(0, 255)
    noise = np.random.default_rng(0).integers(0, 60, (height // 8, width // 8), np.uint8)
    leaves = cv2.resize(noise, SIZE).astype(np.float32)
    back = np.dstack((leaves, 120 + leaves, leaves))
    picture = alpha[..., None] * colours + (1 - alpha[..., None]) * back
    grain = np.random.default_rng(1).normal(0, 4, (height, width, 1)).astype(np.float32)  # a sensor's, at ISO 400 or so
    picture = (picture + grain).clip(0, 255)
    buffer = io.BytesIO()
    Image.fromarray(picture.round().astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return Scene(buffer.getvalue(), alpha, colours, cv2.resize(alpha, (256, 256), interpolation=cv2.INTER_AREA))


class Given:
    """An engine that knows its matte already."""

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


def stages(here: Scene) -> dict[str, float]:
    """CPU milliseconds of each of our stages and of all, on one thread."""
    runs: dict[str, list[float]] = {name: [] for name in (*STAGES, "total")}

    def timed(name: str, *args: Any) -> Any:
        began = time.thread_time()
        result = STAGES[name](*args)
        runs[name].append((time.thread_time() - began) * 1000)
        return result

    for _ in range(ROUNDS):
        began = time.thread_time()
        rgb = timed("decode", here.photo, ServerSettings().limits).rgb
        alpha = timed("refine", here.matte, rgb)
        timed("subject", alpha)
        timed("encode", timed("foreground", rgb, alpha), alpha, Output(), None, {})
        runs["total"].append((time.thread_time() - began) * 1000)
    return {name: statistics.median(times) for name, times in runs.items()}


def ours(here: Scene, pool: ThreadPoolExecutor) -> tuple[float, bytes]:
    """Seconds for PICTURES, and the last result."""
    engine, limits = Given(here.matte), ServerSettings().limits
    began = time.perf_counter()
    results = list(pool.map(lambda _: cut_out(here.photo, Options(), engine, limits), range(PICTURES)))
    return time.perf_counter() - began, results[-1].data


def edge_error(result: bytes, here: Scene) -> float:
    """Mean error, 0 to 255, of the result's composite on white in the soft edge, against the subject's own colours."""
    with Image.open(io.BytesIO(result)) as opened:
        found = np.asarray(opened.convert("RGBA"), np.float32)
    band = (here.alpha > 0.05) & (here.alpha < 0.95)
    a = found[band][:, 3:] / 255
    shown = a * found[band][:, :3] + (1 - a) * 255
    true = here.alpha[band][:, None] * here.colours[band] + (1 - here.alpha[band][:, None]) * 255
    return float(np.abs(shown - true).mean())


def main() -> int:
    cv2.setNumThreads(1)
    here, work = scene(), ROOT / ".local" / "peers"
    work.mkdir(parents=True, exist_ok=True)
    photo, matte = work / "photo.jpg", work / "matte.png"
    photo.write_bytes(here.photo)
    cv2.imwrite(str(matte), np.rint(here.matte * 255).astype(np.uint8))
    side = Path(__file__).with_name("rembg_side.py")
    table = Table("side", "images/s", "ours / theirs", "edge error on white, of 255")
    with ThreadPoolExecutor(THREADS) as pool:
        ours(here, pool)
        for name, options in VARIANTS.items():
            asked = json.dumps({**options, "threads": THREADS})
            with subprocess.Popen(  # noqa: S603
                [installed() / "python", side, matte, photo, asked],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "NUMBA_CACHE_DIR": str(work / "numba")},
            ) as other:
                assert other.stdin
                assert other.stdout
                pairs, result = [], b""
                for turn in range(ROUNDS + 1):
                    other.stdin.write(f"{PICTURES}\n")
                    other.stdin.flush()
                    theirs = float(other.stdout.readline())
                    mine, result = ours(here, pool)
                    if turn:  # the first is to warm up
                        pairs.append((mine, theirs))
                other.stdin.close()
            rate = PICTURES / statistics.median(theirs for _, theirs in pairs)
            ratio = statistics.median(theirs / mine for mine, theirs in pairs)
            error = edge_error((work / "rembg.png").read_bytes(), here)
            table.add_row(name, f"{rate:.2f}", f"{ratio:.2f}", f"{error:.1f}")
            rate = PICTURES / statistics.median(mine for mine, _ in pairs)
        table.add_row("maskdrop", f"{rate:.2f}", "", f"{edge_error(result, here):.1f}")
    console = Console(highlight=False, width=110)
    console.print(table)
    told = ", ".join(f"{name} {ms:.0f}" for name, ms in stages(here).items())
    console.print(f"CPU ms of maskdrop's stages, alone: {told}.")
    console.print(f"12 MP JPEG to PNG, {THREADS} threads, the same 256 x 256 matte. {machine()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
