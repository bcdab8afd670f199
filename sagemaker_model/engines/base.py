"""What an engine is: `setup` once, then `predict` from as many threads as there are workers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from maskdrop.catalog import ENGINES
from maskdrop.catalog import Engine as Row
from maskdrop.errors import UnknownEngine
from maskdrop.prompt import Prompts
from sagemaker_model.pixels import Pixels
from sagemaker_model.weights import MissingWeights

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alpha:
    """What an engine of the catalogue's `returns` "alpha" hands back.

    values: hxw float32 in 0..1, over the whole picture at the engine's own size, 1 = subject.
    warnings: what the user should know, each as "word: sentence".
    """

    values: NDArray[np.float32]
    warnings: tuple[str, ...] = ()


class Engine(Protocol):
    """One engine is preparation, network and what makes sense of its output, in one file.

    weights_sha256: of the file that `setup` read; "" where there is none.
    """

    weights_sha256: str

    def setup(self, device: str, weights_dir: Path) -> None:
        """Reads and verifies the weights. Raises InvalidWeights, as MissingWeights where there are none at all."""

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        """The subject of `rgb`, HxWx3 uint8 sRGB and upright, of any size from 1x1. The prompts lie inside it.
        Called from many threads at once."""


class Engines(dict[str, Engine]):
    """By name. Raises UnknownEngine for one that is not loaded."""

    def __missing__(self, name: str) -> Engine:
        raise UnknownEngine(f"The engine {name!r} has no weights here; these are ready: {', '.join(sorted(self))}.")


def load(rows: Iterable[Row], device: str, weights_dir: Path) -> Engines:
    """The engines of these rows of the catalogue, ready; without optional ones that have no weights. Raises
    InvalidWeights."""
    engines = Engines()
    for row in rows:
        module, _, name = row.factory.partition(":")
        engine = cast(Engine, getattr(importlib.import_module(module), name)())
        try:
            engine.setup(device, weights_dir)
        except MissingWeights as error:
            if not row.optional:
                raise
            log.info("the engine %s is left out: %s", row.name, error)
            continue
        engines[row.name] = engine
    return engines


def load_all(device: str, weights_dir: Path) -> Engines:
    """Every engine of the catalogue by its name."""
    return load(ENGINES.values(), device, weights_dir)
