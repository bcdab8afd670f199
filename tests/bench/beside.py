"""The server beside the same work without one, in turns: what else the machine does in a turn, it does to both."""

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

TURNS = 5
CLIENTS = 32
DECODED, WHOLE = "modnet", "selfie"
DECODED_SIDE, WHOLE_SIDE = 512, 1000


@dataclass(frozen=True, slots=True)
class Beside:
    """Images a second, and the server's share of what its work allows: medians of the turns. alone_cpu_ms: of one
    image without the server."""

    engine: str
    served: Rate
    alone_images_s: float
    share: float
    alone_cpu_ms: float


def decoded(running: Server, device: str, weights: Path) -> Beside | None:
    """512x512 as an array in, alpha as an array out, beside the network on as many images in its best batches: on the
    CPU one for each core. None where the network is not installed."""
    settings = ServerSettings()
    engine: Any = load([ENGINES[DECODED]], device, weights).get(DECODED)
    if engine is None:
        return None
    rgb = decode(jpeg(DECODED_SIDE), settings.limits).rgb
    pictures = [engine.prepare(rgb, ())] * (1 if device == "cpu" else settings.batch_max)
    if device != "cpu":
        engine.warm_up(settings.batch_max)
    request = Request.of_array(rgb, engine=DECODED, output={"channels": "alpha"})
    streams = cores() if device == "cpu" else 1
    return _in_turns(DECODED, running, request, lambda: engine.infer(pictures), len(pictures), streams)


def whole(running: Server, weights: Path) -> Beside:
    """JPEG in, PNG out, beside what decoding, network and encoding allow on the cores that there are."""
    settings, photo = ServerSettings(), jpeg(WHOLE_SIDE)
    engine = load([ENGINES[WHOLE]], "cpu", weights)[WHOLE]
    request = Request.of_jpeg(photo, engine=WHOLE)
    asked = Options(engine=WHOLE)
    return _in_turns(WHOLE, running, request, lambda: cut_out(photo, asked, engine, settings.limits), 1, cores())


def _in_turns(
    engine: str, running: Server, request: Request, work: Callable[[], Any], pictures: int, streams: int
) -> Beside:
    _alone(work, pictures, streams, 0)
    served, alone = [], []
    for _ in range(TURNS):
        served.append(running.rate(request, CLIENTS, SECONDS * 2))
        alone.append(_alone(work, pictures, streams, SECONDS * 2))
    shares = [one.images_s / rate for one, (rate, _) in zip(served, alone, strict=True)]
    middle = sorted(served, key=lambda one: one.images_s)[TURNS // 2]
    rate, cpu_ms = (statistics.median(values) for values in zip(*alone, strict=True))
    return Beside(engine, middle, rate, statistics.median(shares), cpu_ms)


def _alone(work: Callable[[], Any], pictures: int, streams: int, seconds: float) -> tuple[float, float]:
    """Images a second, and milliseconds of CPU an image: `work` on so many images, in `streams` threads, for so long
    and at least once."""
    until = time.perf_counter() + seconds

    def loop(_: int) -> int:
        done = 0
        while time.perf_counter() < until or not done:
            work()
            done += pictures
        return done

    began, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(streams) as pool:
        done = sum(pool.map(loop, range(streams)))
    return done / (time.perf_counter() - began), (time.process_time() - cpu) / done * 1000
