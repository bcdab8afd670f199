"""What to do with a picture, and in which form to hand it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from maskdrop.catalog import DEFAULT_ENGINE, Task, engine
from maskdrop.errors import InvalidOptions, InvalidPrompt
from maskdrop.prompt import Prompts, prompts_from_json, prompts_to_json

Format = Literal["png", "webp"]
Channels = Literal["rgba", "alpha"]

CONTENT_TYPE: dict[Format, str] = {"png": "image/png", "webp": "image/webp"}


@dataclass(frozen=True, slots=True)
class Output:
    """The form of the result.

    format: the file format; both keep alpha exactly.
    channels: `rgba` is the cut-out with straight alpha, `alpha` the matte alone in grey (255 = subject).
    """

    format: Format = "png"
    channels: Channels = "rgba"

    def to_json(self) -> dict[str, Any]:
        return {"format": self.format, "channels": self.channels}

    @classmethod
    def from_json(cls, data: Any) -> Output:
        """Raises InvalidOptions, naming the field and what it may be."""
        data = {} if data is None else data
        if not isinstance(data, dict):
            raise InvalidOptions('"output" is an object.')
        known = {"format": get_args(Format), "channels": get_args(Channels)}
        for name, value in data.items():
            if name not in known:
                raise InvalidOptions(f'"output" has no field {name!r}; it has: {", ".join(known)}.')
            if value not in known[name]:
                raise InvalidOptions(f'"output.{name}" is one of {", ".join(known[name])}, not {value!r}.')
        return cls(**data)


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
        """Raises InvalidOptions, InvalidPrompt or UnknownEngine."""
        data = {} if data is None else data
        if not isinstance(data, dict):
            raise InvalidOptions("Options are an object.")
        if unknown := set(data) - {"task", "engine", "prompt", "output"}:
            raise InvalidOptions(f"There is no option {', '.join(sorted(map(repr, unknown)))}.")
        task = data.get("task", "cutout")
        if task not in get_args(Task):
            raise InvalidOptions(f'"task" is one of {", ".join(get_args(Task))}, not {task!r}.')
        chosen = engine(str(data.get("engine") or DEFAULT_ENGINE[task]))
        if chosen.task != task:
            raise InvalidOptions(f"The engine {chosen.name!r} does not do {task!r}.")
        prompts = prompts_from_json(data.get("prompt"))
        if "box" not in chosen.prompts and any(prompt.box for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} takes no box.")
        if "points" not in chosen.prompts and any(prompt.points for prompt in prompts):
            raise InvalidPrompt(f"The engine {chosen.name!r} takes no points.")
        return cls(task=task, engine=chosen.name, prompts=prompts, output=Output.from_json(data.get("output")))
