"""The first prompt on an image, which SAM's encoder has to see, and the next, for which its embedding is kept."""

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
    """Milliseconds: medians, with all cores, of the engine on decoded pixels."""

    engine: str
    first_ms: float
    next_ms: float


def measured(name: str, engine: Sam, device: str, weights: Path) -> Prompts:
    """Raises InvalidWeights, and NotInstalled where the folder has none."""
    engine.setup(device, weights, cores())
    rgb = decode(jpeg(SIDE), ServerSettings().limits).rgb
    firsts: list[float] = []
    while len(firsts) < RUNS_MIN:
        engine.embeddings = EmbeddingCache(EMBEDDING_BYTES)
        began = time.perf_counter()
        engine.predict(rgb, FIRST)
        firsts.append(time.perf_counter() - began)
    later = runs(lambda: engine.predict(rgb, NEXT))
    return Prompts(name, statistics.median(firsts) * 1000, statistics.median(later) * 1000)


def without_onnx(weights: Path, folder: Path) -> Path:
    """`folder` with links to all of `weights` but the ONNX files: the engines then take torch."""
    for path in weights.iterdir():
        if path.suffix != ".onnx":
            (folder / path.name).symlink_to(path.resolve())
    return folder


def engines(device: str, weights: Path, by_torch: Path) -> Mapping[str, tuple[Sam, Path]]:
    """By what to call them; `by_torch` is a folder of `without_onnx`. SAM 1's encoder takes a CPU too long to ask
    thrice."""
    if device == "cuda":
        return {"SAM 2.1, torch": (Sam2(), by_torch), "SAM 1, torch": (Sam(), by_torch)}
    return {"SAM 2.1 tiny, ONNX Runtime": (Sam2(), weights), "SAM 2.1 tiny, torch": (Sam2(), by_torch)}
