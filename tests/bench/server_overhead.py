"""Compares the server with the same processing called directly, in alternating rounds that share the machine's load."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskdrop.catalog import ENGINES
from maskdrop.options import Options
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import load
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.settings import ServerSettings
from tests.bench.measure import SECONDS, cores
from tests.bench.photos import jpeg
from tests.bench.served import Rate, Request, Server

ROUNDS = 5
CLIENTS = 32
ARRAY_ENGINE, FILE_ENGINE = "modnet", "selfie"
ARRAY_SIDE, FILE_SIDE = 512, 1000


@dataclass(frozen=True, slots=True)
class Overhead:
    """Images a second served and called directly: medians of the rounds.

    share: served / direct images a second. direct_cpu_ms: CPU milliseconds of one image without the server.
    """

    engine: str
    served: Rate
    direct_images_s: float
    share: float
    direct_cpu_ms: float


def of_arrays(running_server: Server, device: str, weights: Path) -> Overhead | None:
    """Compares requests of 512x512 arrays, with alpha arrays as responses, with the network alone in its best batches.

    On the CPU the best batch is one image on each core. None if the network is not installed.
    """
    settings = ServerSettings()
    engine: Any = load([ENGINES[ARRAY_ENGINE]], device, weights).get(ARRAY_ENGINE)
    if engine is None:
        return None
    rgb = decode(jpeg(ARRAY_SIDE), settings.limits).rgb
    images = [engine.prepare(rgb, ())] * (1 if device == "cpu" else settings.batch_max)
    if device != "cpu":
        engine.warm_up(settings.batch_max)
    request = Request.of_array(rgb, engine=ARRAY_ENGINE, output={"channels": "alpha"})
    streams = cores() if device == "cpu" else 1
    return _compare(ARRAY_ENGINE, running_server, request, lambda: engine.infer(images), len(images), streams)


def of_files(running_server: Server, weights: Path) -> Overhead:
    """Compares requests from JPEG to PNG with decoding, network and encoding called directly on all cores."""
    settings, photo = ServerSettings(), jpeg(FILE_SIDE)
    engine = load([ENGINES[FILE_ENGINE]], "cpu", weights)[FILE_ENGINE]
    request = Request.of_jpeg(photo, engine=FILE_ENGINE)
    options = Options(engine=FILE_ENGINE)
    return _compare(
        FILE_ENGINE, running_server, request, lambda: cut_out(photo, options, engine, settings.limits), 1, cores()
    )


def _compare(
    engine: str, running_server: Server, request: Request, direct: Callable[[], Any], images: int, streams: int
) -> Overhead:
    _direct_rate(direct, images, streams, 0)
    served, without_server = [], []
    for _ in range(ROUNDS):
        served.append(running_server.rate(request, CLIENTS, SECONDS * 2))
        without_server.append(_direct_rate(direct, images, streams, SECONDS * 2))
    shares = [rate.images_s / direct_rate for rate, (direct_rate, _) in zip(served, without_server, strict=True)]
    median = sorted(served, key=lambda rate: rate.images_s)[ROUNDS // 2]
    direct_images_s, cpu_ms = (statistics.median(values) for values in zip(*without_server, strict=True))
    return Overhead(engine, median, direct_images_s, statistics.median(shares), cpu_ms)


def _direct_rate(direct: Callable[[], Any], images: int, streams: int, seconds: float) -> tuple[float, float]:
    """Images a second, and CPU milliseconds an image, of `direct` in `streams` threads.

    images: images of one call. seconds: duration; each thread calls at least once.
    """
    until = time.perf_counter() + seconds

    def loop(_: int) -> int:
        done = 0
        while time.perf_counter() < until or not done:
            direct()
            done += images
        return done

    start, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(streams) as pool:
        done = sum(pool.map(loop, range(streams)))
    return done / (time.perf_counter() - start), (time.process_time() - cpu) / done * 1000
