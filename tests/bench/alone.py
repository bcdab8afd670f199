"""One engine on one image, on one core, in a process of its own: so its memory is its own."""

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
from sagemaker_model.engines.base import Engine, load
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.settings import ServerSettings
from tests.bench.measure import forget_peak, peak_mb, runs
from tests.bench.photos import jpeg

SIDES = (1000, 512, 3464)
"""1, 0.26 and 12 MP."""

FIRST_MS_MAX = 10_000
"""What takes longer for its first image is measured on that one alone: SAM vit_b on a core."""


@dataclass(frozen=True, slots=True)
class Alone:
    """One engine on one size. Milliseconds: medians; cpu_ms of the whole. Megabytes: resident at the most, the
    network's with its engine and its libraries."""

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
    """An engine that takes points gets one, in the middle."""
    prompts = (Prompt(points=((side / 2, side / 2, 1),)),) if "points" in ENGINES[engine].prompts else ()
    return Options(engine=engine, prompts=prompts)


def measured(engine: str, device: str, weights: Path) -> list[Alone]:
    """Empty where the engine is not installed. Raises InvalidWeights."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_measured, engine, device, weights).result()


def _measured(name: str, device: str, weights: Path) -> list[Alone]:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    engines = load([ENGINES[name]], device, weights)
    rows: list[Alone] = []
    for side in SIDES if engines else ():
        rows.append(_one(name, engines[name], side))
        if rows[-1].first_ms > FIRST_MS_MAX:
            break
    return rows


def _one(name: str, engine: Engine, side: int) -> Alone:
    """What SAM keeps of an image is kept: `first_ms` is its first prompt's, the others are of its next."""
    photo, limits, asked = jpeg(side), ServerSettings().limits, options(name, side)
    rgb = decode(photo, limits).rgb
    forget_peak()
    began = time.perf_counter()
    engine.predict(rgb, asked.prompts)
    first = time.perf_counter() - began
    predict, predict_mb = runs(lambda: engine.predict(rgb, asked.prompts)), peak_mb()
    forget_peak()
    timings: list[dict[str, float]] = []
    cpu = time.process_time()
    whole = runs(lambda: timings.append(cut_out(photo, asked, engine, limits).timings))
    cpu = (time.process_time() - cpu) / len(timings)
    stages = {stage: statistics.median(one[stage] for one in timings) for stage in timings[0]}
    first_ms, predict_ms, whole_ms, cpu_ms = (
        1000 * one for one in (first, statistics.median(predict), statistics.median(whole), cpu)
    )
    return Alone(name, side, first_ms, predict_ms, whole_ms, cpu_ms, stages, predict_mb, peak_mb())
