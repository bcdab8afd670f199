"""Options of a job: task, engine, prompts and the form of the result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from maskdrop import output
from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, PromptKind, Task, engine
from maskdrop.errors import InvalidOptions, InvalidPrompt, OptionsConflict
from maskdrop.output import Output
from maskdrop.prompt import Prompts, prompts_from_json, prompts_to_json

JSON_FIELDS = ("task", "engine", "prompt", "output")


@dataclass(frozen=True, slots=True)
class Options:
    """Everything besides the image that determines a result. In JSON, `prompts` is the field "prompt"."""

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
        values = parsed(data)
        task: Task = values.get("task", "cutout")
        chosen = values.get("engine") or engine(DEFAULT_ENGINE[task])
        if chosen.task != task:
            raise OptionsConflict(f"The engine {chosen.name!r} does not support the task {task!r}.")
        prompts: Prompts = values["prompts"]
        if "box" not in chosen.prompts and any(prompt.box for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} does not support boxes; use {_supporting('box')}.")
        if "points" not in chosen.prompts and any(prompt.points for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} does not support points; use {_supporting('points')}.")
        return cls(task=task, engine=chosen.name, prompts=prompts, output=Output(**values["output"]))


def _supporting(kind: PromptKind) -> str:
    """Names the engines that support a kind of prompt, for an error message."""
    return " or ".join(engine.name for engine in ENGINES.values() if kind in engine.prompts)


def parsed(data: Any) -> dict[str, Any]:
    """Parses each field of an options object on its own; null means absent. The result always has `prompts` and
    `output`, a dictionary. Raises InvalidOptions, InvalidPrompt and UnknownEngine."""
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidOptions(f"Options must be an object with the fields {', '.join(JSON_FIELDS)}; got {data!r:.80}.")
    if unknown := set(data) - set(JSON_FIELDS):
        raise InvalidOptions(
            f"Unknown option {', '.join(sorted(map(repr, unknown)))}; options are {', '.join(JSON_FIELDS)}."
        )
    values: dict[str, Any] = {}
    if (task := data.get("task")) is not None:
        if task not in get_args(Task):
            raise InvalidOptions(f'"task" must be one of {", ".join(get_args(Task))}; got {task!r:.80}.')
        values["task"] = task
    if (name := data.get("engine")) is not None:
        if not isinstance(name, str):
            raise InvalidOptions(f'"engine" must be the name of an engine (a string); got {name!r:.80}.')
        values["engine"] = engine(name)
    prompts = prompts_from_json(data.get("prompt"))
    return {**values, "prompts": prompts, "output": output.parsed(data.get("output"))}
