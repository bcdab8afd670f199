"""Measures SAM's first prompt on an image, which runs the encoder, and the next, which uses the cached embedding."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskdrop.prompt import Prompt
from sagemaker_model.engines.embeddings import EmbeddingCache
from sagemaker_model.engines.sam import EMBEDDING_BYTES, Sam, Sam2
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.settings import ServerSettings
from tests.bench.measure import RUNS_MIN, cores, runs
from tests.bench.photos import jpeg

SIDE = 1000
FIRST, NEXT = (Prompt(points=((500.0, 400.0, 1),)),), (Prompt(box=(200.0, 100.0, 900.0, 1000.0)),)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Median milliseconds of the first and the next prompt, on decoded pixels with all cores."""

    engine: str
    first_ms: float
    next_ms: float


def measured(name: str, engine: Sam, device: str, weights: Path) -> Prompts:
    """Measures one engine. Raises InvalidWeights, and NotInstalled if the folder has no weights for it."""
    engine.setup(device, weights, cores())
    if device == "cuda":
        engine.warm_up(1)  # no optimisation is on before
    rgb = decode(jpeg(SIDE), ServerSettings().limits).rgb
    firsts: list[float] = []
    while len(firsts) < RUNS_MIN:
        engine.embeddings = EmbeddingCache(EMBEDDING_BYTES)
        start = time.perf_counter()
        engine.predict(rgb, FIRST)
        firsts.append(time.perf_counter() - start)
    later = runs(lambda: engine.predict(rgb, NEXT))
    return Prompts(name, statistics.median(firsts) * 1000, statistics.median(later) * 1000)


def without_onnx(weights: Path, folder: Path) -> Path:
    """Links all files of `weights` except ONNX into `folder`, so that the engines use torch; returns `folder`."""
    for path in weights.iterdir():
        if path.suffix != ".onnx":
            (folder / path.name).symlink_to(path.resolve())
    return folder


def engines(device: str, weights: Path, by_torch: Path) -> Mapping[str, tuple[Sam, Path]]:
    """The engines to measure and their weights folders, by label.

    by_torch: a folder of `without_onnx`. SAM 1 is measured on GPUs only: on a CPU three runs of its encoder take too
    long.
    """
    if device == "cuda":
        return {"SAM 2.1, torch": (Sam2(), by_torch), "SAM 1, torch": (Sam(), by_torch)}
    return {"SAM 2.1 tiny, ONNX Runtime": (Sam2(), weights), "SAM 2.1 tiny, torch": (Sam2(), by_torch)}
