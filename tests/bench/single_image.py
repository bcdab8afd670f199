"""Time and memory of one engine for one image, on one core, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2

from maskdrop.catalog import ENGINES
from maskdrop.options import Options
from maskdrop.prompt import Prompt
from sagemaker_model.cutout import cut_out
from sagemaker_model.engines.base import BatchedEngine, Engine, load
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.settings import ServerSettings
from tests.bench.measure import peak_mb, reset_peak, runs
from tests.bench.photos import jpeg

SIDES = (1000, 512, 3464)
"""Sides of the square images in pixels: 1, 0.26 and 12 MP."""

FIRST_MS_MAX = 10_000
"""An engine whose first image takes longer is measured at one size only: SAM vit_b on one core."""


@dataclass(frozen=True, slots=True)
class EngineTiming:
    """One engine at one image size.

    first_ms: prediction of the process's first image. predict_ms: median of the prediction on decoded pixels.
    whole_ms, cpu_ms: median wall time and mean CPU time of a whole cut-out. stages: median milliseconds of each stage.
    predict_mb, whole_mb: peak resident memory in megabytes, libraries included.
    """

    engine: str
    side: int
    first_ms: float
    predict_ms: float
    whole_ms: float
    cpu_ms: float
    stages: dict[str, float]
    predict_mb: float
    whole_mb: float


def options(engine: str, side: int) -> Options:
    """Options with one point in the centre for an engine that takes points."""
    prompts = (Prompt(points=((side / 2, side / 2, 1),)),) if "points" in ENGINES[engine].prompts else ()
    return Options(engine=engine, prompts=prompts)


def measured(engine: str, device: str, weights: Path) -> list[EngineTiming]:
    """Measures an engine at all SIDES in a new process; empty if it is not installed. Raises InvalidWeights."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, engine, device, weights).result()


def _measured(name: str, device: str, weights: Path) -> list[EngineTiming]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    engines = load([ENGINES[name]], device, weights)
    for engine in engines.values():
        if device == "cuda" and isinstance(engine, BatchedEngine):
            engine.warm_up(1)  # no optimisation is on before
    rows: list[EngineTiming] = []
    for side in SIDES if engines else ():
        rows.append(_at_size(name, engines[name], side))
        if rows[-1].first_ms > FIRST_MS_MAX:
            break
    return rows


def _at_size(name: str, engine: Engine, side: int) -> EngineTiming:
    """SAM caches an image's embedding: `first_ms` is its first prompt's time, the other times are of later prompts."""
    photo, limits, request_options = jpeg(side), ServerSettings().limits, options(name, side)
    rgb = decode(photo, limits).rgb
    reset_peak()
    start = time.perf_counter()
    engine.predict(rgb, request_options.prompts)
    first = time.perf_counter() - start
    predict, predict_mb = runs(lambda: engine.predict(rgb, request_options.prompts)), peak_mb()
    reset_peak()
    timings: list[dict[str, float]] = []
    cpu = time.process_time()
    whole = runs(lambda: timings.append(cut_out(photo, request_options, engine, limits).timings))
    cpu = (time.process_time() - cpu) / len(timings)
    stages = {stage: statistics.median(timing[stage] for timing in timings) for stage in timings[0]}
    seconds = (first, statistics.median(predict), statistics.median(whole), cpu)
    first_ms, predict_ms, whole_ms, cpu_ms = (1000 * value for value in seconds)
    return EngineTiming(name, side, first_ms, predict_ms, whole_ms, cpu_ms, stages, predict_mb, peak_mb())
