"""What to do with a picture, and in which form to hand it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

from maskdrop.catalog import DEFAULT_ENGINE, Task, engine
from maskdrop.errors import InvalidOptions, InvalidPrompt, OptionsConflict
from maskdrop.output import Output, parsed
from maskdrop.prompt import Prompts, prompts_from_json, prompts_to_json


@dataclass(frozen=True, slots=True)
class Options:
    """Everything that decides a result, besides the picture. In JSON, `prompts` is the field "prompt"."""

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
        """An object with any of the four; null is as good as absent. Raises what `check` raises, OptionsConflict, and
        InvalidPrompt for a prompt that the engine cannot use."""
        check(data)
        data = {name: value for name, value in (data or {}).items() if value is not None}
        task: Task = data.get("task", "cutout")
        chosen = engine(data.get("engine", DEFAULT_ENGINE[task]))
        if chosen.task != task:
            raise OptionsConflict(f"The engine {chosen.name!r} does not do {task!r}.")
        prompts = prompts_from_json(data.get("prompt"))
        if "box" not in chosen.prompts and any(prompt.box for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} takes no box.")
        if "points" not in chosen.prompts and any(prompt.points for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} takes no points.")
        return cls(task=task, engine=chosen.name, prompts=prompts, output=Output.from_json(data.get("output")))


def check(data: Any) -> None:
    """Each option by itself, whatever the others say. Raises InvalidOptions, InvalidPrompt and UnknownEngine."""
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidOptions("Options are an object.")
    if unknown := set(data) - {"task", "engine", "prompt", "output"}:
        raise InvalidOptions(f"There is no option {', '.join(sorted(map(repr, unknown)))}.")
    task, name = data.get("task"), data.get("engine")
    if task is not None and task not in get_args(Task):
        raise InvalidOptions(f'"task" is one of {", ".join(get_args(Task))}, not {task!r:.80}.')
    if not isinstance(name, str | None):
        raise InvalidOptions(f'"engine" is a name, a text, not {name!r:.80}.')
    if name is not None:
        engine(name)
    prompts_from_json(data.get("prompt"))
    parsed(data.get("output"))
