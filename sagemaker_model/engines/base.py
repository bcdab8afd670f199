"""What an engine is: `setup` once, then `predict` from as many threads as there are workers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from maskdrop.catalog import DEFAULT_ENGINE, ENGINES
from maskdrop.catalog import Engine as Row
from maskdrop.prompt import Prompts
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import NotInstalled

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alpha:
    """What an engine of the catalogue's `returns` "alpha" hands back.

    values: hxw float32 in 0..1, over the whole image at the engine's own size, 1 = subject.
    warnings: what the user should know, each as "word: sentence".
    """

    values: NDArray[np.float32]
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """One engine is preparation, network and what makes sense of its output, in one file.

    weights_sha256: of the file that `setup` read; "" where there is none.
    """

    weights_sha256: str

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Reads and verifies the weights. `threads` is how many cores of the CPU the network takes for one image.
        Raises InvalidWeights; NotInstalled where what the engine needs is not there at all."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        """The subject of `rgb`, HxWx3 uint8 sRGB and upright, of any size from 1x1. The prompts lie inside it.
        Called from many threads at once."""


class Prepared(Protocol):
    """What a network takes of one image: an array, or something with one in it. What has one `shape` may share a
    batch, so there are few shapes."""

    @property
    def shape(self) -> tuple[int, ...]: ...


@runtime_checkable
class BatchedEngine(Engine, Protocol):
    """An engine whose network takes several images at once. On a GPU the server sends them together, from all
    requests; `predict` does the three steps for one image."""

    def warm_up(self, batch_max: int) -> None:
        """On a GPU, before the server is ready: whatever the first batches of each shape and size would take time or
        memory for. Batches then have `batch_max` images at most."""

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Prepared:
        """The network's input. Any thread."""

    def infer(self, batch: Sequence[Any]) -> Sequence[Any]:
        """One output for each input that `prepare` made, in order; the inputs are of one shape. One thread, the
        device's own. Raises MemoryError or torch's OutOfMemoryError for a batch that does not fit."""

    def finish(self, output: Any, rgb: Pixels, prompts: Prompts) -> Alpha:
        """From the network's output for this image. Any thread."""


def load(rows: Iterable[Row], device: str, weights_dir: Path, threads: int = 1) -> dict[str, Engine]:
    """The engines of these rows of the catalogue, set up, but for those that are not installed here. Raises
    InvalidWeights, also for the default engine of a task that is not installed."""
    engines: dict[str, Engine] = {}
    for row in rows:
        module, _, name = row.factory.partition(":")
        engine = cast(Engine, getattr(importlib.import_module(module), name)())
        try:
            engine.setup(device, weights_dir, threads)
        except NotInstalled as error:
            if row.name == DEFAULT_ENGINE[row.task]:
                raise
            log.info("engine %s is left out: %s", row.name, error)
            continue
        engines[row.name] = engine
    return engines


def load_all(device: str, weights_dir: Path, threads: int = 1) -> dict[str, Engine]:
    """Every engine of the catalogue that is installed here, by its name."""
    return load(ENGINES.values(), device, weights_dir, threads)
