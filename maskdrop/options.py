"""What to do with an image, and in which form to hand it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from maskdrop import output
from maskdrop.catalog import DEFAULT_ENGINE, Task, engine
from maskdrop.errors import InvalidOptions, InvalidPrompt, OptionsConflict
from maskdrop.output import Output
from maskdrop.prompt import Prompts, prompts_from_json, prompts_to_json

JSON_FIELDS = ("task", "engine", "prompt", "output")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides a result, besides the image. In JSON, `prompts` is the field "prompt"."""

    task: Task = "cutout"
    engine: str = DEFAULT_ENGINE["cutout"]
    prompts: Prompts = ()
    output: Output = field(default_factory=Output)

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "engine": self.engine,
            "prompt": prompts_to_json(self.prompts),
            "output": self.output.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any) -> Options:
        """Raises what `parsed` raises, OptionsConflict, and InvalidPrompt for a prompt that the engine cannot use."""
        said = parsed(data)
        task: Task = said.get("task", "cutout")
        chosen = said.get("engine") or engine(DEFAULT_ENGINE[task])
        if chosen.task != task:
            raise OptionsConflict(f"The engine {chosen.name!r} does not do {task!r}.")
        prompts: Prompts = said["prompts"]
        if "box" not in chosen.prompts and any(prompt.box for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} takes no box.")
        if "points" not in chosen.prompts and any(prompt.points for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} takes no points.")
        return cls(task=task, engine=chosen.name, prompts=prompts, output=Output(**said["output"]))


def parsed(data: Any) -> dict[str, Any]:
    """Each option by itself, from an object with any of the four; null is as good as absent. `prompts` and `output`, a
    dictionary, are always there. Raises InvalidOptions, InvalidPrompt and UnknownEngine."""
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidOptions("Options are an object.")
    if unknown := set(data) - set(JSON_FIELDS):
        raise InvalidOptions(f"There is no option {', '.join(sorted(map(repr, unknown)))}.")
    said: dict[str, Any] = {}
    if (task := data.get("task")) is not None:
        if task not in get_args(Task):
            raise InvalidOptions(f'"task" is one of {", ".join(get_args(Task))}, not {task!r:.80}.')
        said["task"] = task
    if (name := data.get("engine")) is not None:
        if not isinstance(name, str):
            raise InvalidOptions(f'"engine" is a name, a text, not {name!r:.80}.')
        said["engine"] = engine(name)
    prompts = prompts_from_json(data.get("prompt"))
    return {**said, "prompts": prompts, "output": output.parsed(data.get("output"))}
