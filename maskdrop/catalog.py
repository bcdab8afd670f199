"""The catalogue of engines. A new engine is one module and one row here; all other parts read this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskdrop.errors import UnknownEngine

Task = Literal["cutout"]
Returns = Literal["alpha", "masks", "boxes", "image"]
PromptKind = Literal["box", "points"]


@dataclass(frozen=True, slots=True)
class Engine:
    """One row of the catalogue.

    returns: kind of the engine's output. Later steps branch on it, never on the name.
    subject: kind of subject that the engine segments.
    prompts: supported kinds of prompts; others are rejected.
    factory: "module:Class" in the container; the class takes no arguments.
    light: whether a serverless endpoint can run it: fast without a GPU (25 MP in at most 6 s on one core), weights in
        the container image.
    """

    name: str
    task: Task
    returns: Returns
    subject: str
    factory: str
    prompts: frozenset[PromptKind] = frozenset()
    light: bool = False


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("selfie", "cutout", "alpha", "people", "sagemaker_model.engines.selfie:Selfie", light=True),
        Engine("portrait", "cutout", "alpha", "people", "sagemaker_model.engines.portrait:Portrait", light=True),
        Engine(
            "grabcut", "cutout", "alpha", "anything, by box", "sagemaker_model.engines.grabcut:GrabCut",
            frozenset({"box"}), light=True,
        ),
        Engine("modnet", "cutout", "alpha", "people", "sagemaker_model.engines.modnet:MODNet"),
        Engine(
            "sam", "cutout", "alpha", "anything, by points and boxes", "sagemaker_model.engines.sam:Sam",
            frozenset({"box", "points"}),
        ),
        Engine(
            "sam2", "cutout", "alpha", "anything, by points and boxes", "sagemaker_model.engines.sam:Sam2",
            frozenset({"box", "points"}),
        ),
    )
}  # fmt: skip

DEFAULT_ENGINE: dict[Task, str] = {"cutout": "portrait"}


def engine(name: str) -> Engine:
    """The engine named `name`. Raises UnknownEngine that lists the engines."""
    try:
        return ENGINES[name]
    except KeyError:
        raise UnknownEngine(f'"engine" must be one of {", ".join(sorted(ENGINES))}; got {name!r:.80}.') from None
