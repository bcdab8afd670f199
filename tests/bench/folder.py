"""`make bench-folder`: compares `maskdrop cutout FOLDER` with `rembg p` on 200 photos, as whole commands.

Both use the same network files and alternate in one run; the start of the commands counts. rembg processes one photo at
a time and gives its network all cores, its default; Maskdrop processes one photo on each core.

Arguments: number of photos (default: 200) and of rounds (default: 3).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from PIL import Image
from rich.console import Console
from rich.table import Table

from local.config import ROOT, LocalConfig
from sagemaker_model.weights import store
from tests.bench.machine import machine
from tests.bench.photos import SAMPLE
from tests.bench.rembg_venv import installed

PHOTOS, ROUNDS = 200, 3
SIDES = (1000, 1200, 1600, 2000)
"""Sides of the photos in pixels: 1 to 4 MP, such as those of a shop."""

FOLDER = ROOT / ".local" / "folder"

START = 5
"""Runs of the command for its start-up time."""


def make_photos(count: int) -> Path:
    """Writes photos of a person, each turned by another angle, and returns their folder."""
    folder = FOLDER / f"photos-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(SAMPLE) as opened:
        sample = opened.convert("RGB")
    for number in range(count):
        path = folder / f"{number:04}.jpg"
        if not path.exists():
            side = SIDES[number % len(SIDES)]
            turned = sample.rotate(number % 21 - 10, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90))
            turned.resize((side, side), Image.Resampling.LANCZOS).save(path, "JPEG", quality=90)
    return folder


@dataclass(frozen=True, slots=True)
class Seconds:
    """Seconds of a command: on the clock, and of CPU time, which other programs on the machine hardly change."""

    wall: float
    cpu: float


def seconds_of(command: Sequence[str | Path], out: Path, count: int, env: dict[str, str]) -> Seconds:
    """Runs a command that writes `count` results into the empty folder `out`. Raises RuntimeError if one is missing."""
    shutil.rmtree(out, ignore_errors=True)
    before, start = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    wall, after = time.perf_counter() - start, getrusage(RUSAGE_CHILDREN)
    if (found := len([*out.glob("*.png")])) != count:
        raise RuntimeError(f"{command[0]} wrote {found} of {count} results.")
    return Seconds(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def startup_s(command: Sequence[str | Path]) -> float:
    """Returns the median wall-clock time of a command in seconds."""
    times = []
    for _ in range(START):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(count: int = PHOTOS, rounds: int = ROUNDS) -> int:
    photos, programs = make_photos(count), installed()
    weights = LocalConfig.from_env(os.environ).weights
    network = weights / "rembg-portrait.onnx"  # below U2NET_HOME: rembg opens no file elsewhere
    convert = Path(__file__).with_name("rembg_network.py"), store.located(store.named("portrait"), weights), network
    subprocess.run([programs / "python", *convert], check=True)  # noqa: S603
    env = {**os.environ, "U2NET_HOME": str(weights), "NUMBA_CACHE_DIR": str(FOLDER / "numba"), "PYTHONPATH": str(ROOT)}
    maskdrop: list[str | Path] = [sys.executable, "-m", "cli"]
    mine, theirs = FOLDER / "maskdrop", FOLDER / "rembg"
    rows = {
        "portrait": ("portrait", ["-m", "u2net_custom", "-x", json.dumps({"model_path": str(network)})]),
        "u2netp": ("u2netp", ["-m", "u2netp"]),
    }
    columns = "rembg p, images/s", "maskdrop cutout, images/s", "ratio", "CPU s an image, rembg", "maskdrop", "ratio"
    table = Table("network", *columns)
    for name, (engine, flags) in rows.items():
        ours = [*maskdrop, "cutout", photos, "-o", mine, "--engine", engine, "--folder", weights]
        rembg: list[str | Path] = [programs / "rembg", "p", *flags]
        seconds_of([*rembg, make_photos(1), theirs], theirs, 1, env)  # compiles rembg's matting, some 40 s, once
        pairs = [
            (seconds_of([*rembg, photos, theirs], theirs, count, env), seconds_of(ours, mine, count, env))
            for _ in range(rounds)
        ]
        walls, cpus = [(a.wall, b.wall) for a, b in pairs], [(a.cpu, b.cpu) for a, b in pairs]
        cells = [f"{count / statistics.median(column):.2f}" for column in zip(*walls, strict=True)]
        cells.append(f"{statistics.median(a / b for a, b in walls):.2f}")
        cells += [f"{statistics.median(column) / count:.2f}" for column in zip(*cpus, strict=True)]
        table.add_row(name, *cells, f"{statistics.median(a / b for a, b in cpus):.2f}")
    console = Console(highlight=False, width=110)
    console.print(table)
    console.print(f"{count} JPEG photos of 1 to 4 MP, {rounds} rounds, medians. {machine()}.")
    console.print(f"maskdrop --help: {startup_s([*maskdrop, '--help']):.2f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
