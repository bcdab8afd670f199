"""`make bench-bounds`: memory and time of the model server by size and format, and with decoding bombs.

    python -m tests.bench.bounds [--part decoding|sizes|bombs] [--engine NAME] [--bomb NAME] [--rounds N] [--max-mp MP]

Memory is that of the server with its decoder processes. Figures of one run are comparable; on a shared machine only
their ratios are.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import cv2
import numpy as np
from PIL import Image

from local.model_server import ALLOCATOR
from maskdrop.catalog import ENGINES
from sagemaker_model.cutout import ImageReader
from sagemaker_model.engines.base import load
from sagemaker_model.imaging.pixels import Limits, decode
from sagemaker_model.serving.decoding import Decoders
from sagemaker_model.settings import ServerSettings
from tests import bombs
from tests.bench.engines import WEIGHTS
from tests.bench.measure import tree_mb, tree_peak
from tests.bench.photos import jpeg
from tests.bench.served import Request, Server, server

SIDES = (1000, 3464, 5000, 7071, 10_000)
"""Sides of the square images in pixels: 1, 12, 25, 50 and 100 MP."""

SHAPES = ((65_000, 1), (65_000, 760), (1, 65_000))
"""Heights and widths of odd images."""

PARTS = ("decoding", "sizes", "bombs")

ROUNDS = 15
"""Pairs of decodings of a file; calls of the other caller in a block."""

PROMPTED = ("prompted", "sam", "sam2")
"""Engines that need a prompt."""

BLOCKS = 3
"""Blocks without a bomb, and as many with it, alternating."""

LATENCY_RATIO_MAX = 2.0
"""Largest median latency of another caller during a bomb, relative to that without."""


def formats(side: int) -> dict[str, bytes]:
    """An image in each accepted format that this machine can write, in the kinds that take most memory."""
    photo = Image.open(io.BytesIO(jpeg(side)))
    noise = np.random.default_rng(0).integers(0, 4, (side, side, 3), np.uint8)
    grain = Image.fromarray(np.asarray(photo.convert("RGB")) // 4 * 4 + noise)
    deep = cv2.cvtColor(np.asarray(photo.convert("RGB")).astype(np.uint16) * 257, cv2.COLOR_RGB2BGRA)
    files: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "JPEG": (photo, "JPEG", {"quality": 90}),
        "JPEG, progressive 4:4:4": (photo, "JPEG", {"quality": 90, "progressive": True, "subsampling": 0}),
        "JPEG, CMYK": (photo.convert("CMYK"), "JPEG", {"quality": 85}),
        "PNG": (photo, "PNG", {"compress_level": 1}),
        "WebP": (photo, "WEBP", {"method": 0}),
        "WebP, lossless": (photo, "WEBP", {"method": 0, "lossless": True, "quality": 1}),
        "TIFF, deflate": (photo, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "GIF": (grain.convert("P"), "GIF", {}),
        "AVIF": (photo, "AVIF", {"speed": 10}),
    }
    encoded = {}
    for name, (image, kind, options) in files.items():
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        encoded[name] = buffer.getvalue()
    return encoded | {"PNG, 16-bit RGBA": cv2.imencode(".png", deep, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()}


def in_process_and_in_pool(side: int, rounds: int) -> None:
    """Prints the times to decode in a thread of this process and in a decoder process, alternating."""
    limits = ServerSettings().limits
    decoders = Decoders(1, 60, 2**30, limits)
    decoders.start()
    with ThreadPoolExecutor(1) as thread:  # as the workers of the server: large arrays are not kept by the allocator
        for name, data in formats(side).items():
            ours, theirs = [], []
            for _ in range(rounds):
                ours.append(thread.submit(_decode_ms, decode, data, limits).result())
                theirs.append(thread.submit(_decode_ms, decoders.decode, data, limits).result())
            in_process, in_decoder = statistics.median(ours), statistics.median(theirs)
            print(
                f"| {name} | {side * side / 1e6:.0f} MP | {in_process:.1f} | {in_decoder:.1f} | "
                f"{in_decoder / in_process:.2f} | {min(theirs) / min(ours):.2f} |",
                flush=True,
            )
    decoders.close()


def _decode_ms(read: ImageReader, data: bytes, limits: Limits) -> float:
    start = time.perf_counter()
    read(data, limits)
    return (time.perf_counter() - start) * 1000


def by_size(running: Server, engine: str, sides: list[int]) -> None:
    """Prints time and peak memory of one engine at each size, one image at a time."""
    for side in sides:
        _measure(running, f"{engine} | {side * side / 1e6:.0f} MP", Request.of_jpeg(jpeg(side), engine=engine))
    for height, width in SHAPES:
        buffer = io.BytesIO()
        Image.new("RGB", (width, height), "navy").save(buffer, "PNG")
        _measure(running, f"{engine} | {width}x{height}", Request.of_jpeg(buffer.getvalue(), engine=engine))


def _measure(running: Server, name: str, request: Request) -> None:
    before = tree_mb(running.process.pid)
    with tree_peak(running.process.pid) as peak:
        start = time.perf_counter()
        status = running.send(request)
        seconds = time.perf_counter() - start
    print(f"| {name} | {status} | {seconds:.2f} | {before:.0f} | {max(peak.mb, before):.0f} |", flush=True)


def with_bomb(running: Server, name: str, calls: int) -> float:
    """Prints and returns the median latency of a caller while another one sends a bomb again and again, relative to
    that without. Blocks without and with the bomb alternate; one with it lasts until a bomb is done.

    calls: of a block, at least.
    """
    photo, bomb = Request.of_jpeg(jpeg(1000)), Request.of_jpeg(bombs.BOMBS[name]())
    quiet: list[float] = []
    busy: list[float] = []
    sent: list[tuple[int, float]] = []
    with ThreadPoolExecutor(1) as pool, tree_peak(running.process.pid) as peak:
        for _ in range(BLOCKS):
            quiet += [_timed(running, photo)[1] for _ in range(calls)]
            ended, done = Event(), len(sent)
            sending = pool.submit(_repeat, running, bomb, ended, sent)
            block = 0
            while block < calls or len(sent) == done:
                busy.append(_timed(running, photo)[1])
                block += 1
            ended.set()
            sending.result()
    without, during = statistics.median(quiet), statistics.median(busy)
    statuses = ", ".join(str(status) for status in Counter(status for status, _ in sent))
    print(
        f"| {name} | {statuses} | {max(seconds for _, seconds in sent):.1f} | {without * 1000:.0f} | "
        f"{during * 1000:.0f} | {during / without:.2f} | {peak.mb:.0f} |",
        flush=True,
    )
    return during / without


def _repeat(running: Server, request: Request, ended: Event, sent: list[tuple[int, float]]) -> None:
    while not ended.is_set():
        sent.append(_timed(running, request))


def _timed(running: Server, request: Request) -> tuple[int, float]:
    start = time.perf_counter()
    status = running.send(request)
    return status, time.perf_counter() - start


def main() -> int:
    """Exits 1 if the latency of another caller exceeds LATENCY_RATIO_MAX."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bounds", description=__doc__)
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; repeatable")
    parser.add_argument(
        "--engine", action="append", help="only this engine; repeatable (default: those that need no prompt)"
    )
    parser.add_argument("--bomb", action="append", choices=bombs.BOMBS, help="only this bomb; repeatable")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="decodings of a file, and calls of a block")
    parser.add_argument("--max-mp", type=float, default=100, help="largest image of the parts decoding and sizes")
    arguments = parser.parse_args()
    parts = arguments.part or PARTS
    sides = [side for side in SIDES if side * side <= arguments.max_mp * 1e6]
    if "decoding" in parts:
        print("| file | size | ms in this process | ms in a decoder | ratio | ratio of minima |")
        print("|---|---|---|---|---|---|")
        for side in sides[:2]:
            in_process_and_in_pool(side, arguments.rounds)
    if "sizes" in parts:
        engines = arguments.engine or [
            name for name in load(list(ENGINES.values()), "cpu", WEIGHTS) if name not in PROMPTED
        ]
        with server(WEIGHTS, workers="1", max_pixels="110000000") as running:
            print("\n| engine | size | status | s | MB before | MB peak |\n|---|---|---|---|---|---|")
            for engine in engines:
                by_size(running, engine, sides)
            side = min(SIDES[3], sides[-1])
            print(f"\n| {side * side / 1e6:.0f} MP | status | s | MB before | MB peak |\n|---|---|---|---|---|")
            for name, data in formats(side).items():
                _measure(running, name, Request.of_jpeg(data))
    ratios = {}
    if "bombs" in parts:
        with server(WEIGHTS, workers="2") as running:
            print("\n| bomb | status | longest s | latency of another caller, ms | during | ratio | MB peak |")
            print("|---|---|---|---|---|---|---|")
            for name in arguments.bomb or bombs.BOMBS:
                ratios[name] = with_bomb(running, name, arguments.rounds)
        slowest = max(ratios, key=lambda name: ratios[name])
        print(f"\nThe latency of another caller is at most {ratios[slowest]:.2f} times as long ({slowest}).")
    return 1 if max(ratios.values(), default=0) > LATENCY_RATIO_MAX else 0


if __name__ == "__main__":
    # Measures with the server's allocator settings. glibc reads them when the process starts.
    if not ALLOCATOR.items() <= os.environ.items():
        os.execve(  # noqa: S606
            sys.executable, [sys.executable, "-m", "tests.bench.bounds", *sys.argv[1:]], os.environ | ALLOCATOR
        )
    sys.exit(main())
