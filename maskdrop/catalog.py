"""The catalogue of engines. A new task is one engine file and one line here; everything else reads this table."""

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

    returns: what the engine hands back; what comes after it branches on this, never on its name.
    prompts: the kinds of prompt it can use; any other kind is refused.
    factory: "module:Class" inside the container; the class takes no arguments.
    light: whether it is quick without a GPU (25 MP in at most 6 s of one core) and its weights are in the image: what a
        serverless endpoint can run.
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
    """The engine called `name`. Raises UnknownEngine, naming those there are."""
    try:
        return ENGINES[name]
    except KeyError:
        raise UnknownEngine(f"There is no engine named {name!r}; there are: {', '.join(sorted(ENGINES))}.") from None
