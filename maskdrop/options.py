"""Options of a job: task, engine, prompts, instances, edit and the form of the result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from maskdrop import output
from maskdrop.catalog import ENGINES, PROMPTED_ENGINE, Engine, PromptKind, Task, default_engine, engine
from maskdrop.edit import Edit
from maskdrop.errors import InvalidOptions, InvalidPrompt, OptionsConflict
from maskdrop.output import Output
from maskdrop.prompt import Prompt, Prompts, prompts_from_json, prompts_to_json
from maskdrop.strokes import Strokes, strokes_from_json

JSON_FIELDS = ("task", "engine", "prompt", "output", "instances", "edit", "refine", "review_below", "strokes")

Instances = Literal["union", "each"]
"""union: one result with all instances. each: also one result for each instance."""


Refine = Literal["guided", "vitmatte"]
"""How the engine's alpha gets the size of the image. guided: by a guided filter. vitmatte: by the network ViTMatte,
where its weights are installed."""

REFINER: Refine = "vitmatte"
"""The refinement by a network, which has a name in `maskdrop.settings.Settings.engines` too."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything besides the image that determines a result. In JSON, `prompts` is the field "prompt".

    edit: images to generate, for the task "replace"; None for none.
    refine: how alpha gets the size of the image.
    review_below: a result whose `subject.score` is lower needs a review; None for the default of the engine.
    strokes: corrections of the alpha, in the order in which they are drawn.
    """

    task: Task = "cutout"
    engine: str = default_engine("cutout", prompted=False).name
    prompts: Prompts = ()
    output: Output = field(default_factory=Output)
    instances: Instances = "union"
    edit: Edit | None = None
    refine: Refine = "guided"
    review_below: float | None = None
    strokes: Strokes = ()

    @property
    def light(self) -> bool:
        """Whether a serverless endpoint can run these options: it has no torch, which ViTMatte needs."""
        return engine(self.engine).light and self.refine == "guided"

    @property
    def extension(self) -> str:
        """The extension of the result's key, without a dot."""
        return "json" if self.task == "detect" else self.output.format

    def to_json(self) -> dict[str, Any]:
        """The canonical JSON form. The fields after `output` are written only where they are chosen, so that the ids of
        existing jobs stay."""
        data: dict[str, Any] = {
            "task": self.task,
            "engine": self.engine,
            "prompt": prompts_to_json(self.prompts),
            "output": self.output.to_json(),
        }
        if self.instances != "union":
            data["instances"] = self.instances
        if self.edit:
            data["edit"] = self.edit.to_json()
        if self.refine != "guided":
            data["refine"] = self.refine
        if self.review_below is not None:
            data["review_below"] = self.review_below
        if self.strokes:
            data["strokes"] = [stroke.to_json() for stroke in self.strokes]
        return data

    @classmethod
    def from_json(cls, data: Any) -> Options:
        """Raises what `parsed` raises, OptionsConflict, and InvalidPrompt for a prompt that the engine cannot use."""
        values = parsed(data)
        task: Task = values.get("task", "cutout")
        prompts: Prompts = values["prompts"]
        chosen: Engine = values.get("engine") or default_engine(task, prompted=bool(prompts))
        if task not in chosen.tasks:
            raise OptionsConflict(
                f"The engine {chosen.name!r} does not support the task {task!r}, only {', '.join(chosen.tasks)}. "
                f'Without "engine", {default_engine(task, prompted=bool(prompts)).name} is used.'
            )
        for kind in get_args(PromptKind):
            if kind not in chosen.prompts and any(_has(prompt, kind) for prompt in prompts):
                raise InvalidPrompt(
                    f"The engine {chosen.name!r} does not support {_NAMES[kind]}; use {_supporting(kind, task)}."
                )
        options = cls(
            task=task,
            engine=chosen.name,
            prompts=prompts,
            output=_output(task, values["output"]),
            instances=values.get("instances", "union"),
            edit=values.get("edit"),
            refine=values.get("refine", "guided"),
            review_below=values.get("review_below"),
            strokes=values["strokes"],
        )
        everything = task == "mask" and chosen.everything and not prompts
        _check_combination(options, everything=everything)
        return replace(options, instances="each") if everything else options


_NAMES: dict[PromptKind, str] = {"box": "boxes", "points": "points", "label": "labels"}


def _has(prompt: Prompt, kind: PromptKind) -> bool:
    """Whether the prompt is of this kind. Points that select instances of a label do not count."""
    return {
        "box": prompt.box is not None,
        "points": bool(prompt.points) and not prompt.label,
        "label": bool(prompt.label),
    }[kind]


def _supporting(kind: PromptKind, task: Task) -> str:
    """Names the engines that support a kind of prompt, for an error message."""
    return " or ".join(engine.name for engine in ENGINES.values() if kind in engine.prompts and task in engine.tasks)


def _output(task: Task, values: dict[str, Any]) -> Output:
    """The form of the result. That of a mask has the channel alpha alone. Raises OptionsConflict."""
    return Output.of({**values, "channels": "alpha"} if task == "mask" else values)


def _check_combination(options: Options, *, everything: bool) -> None:
    """Raises OptionsConflict for options that exclude each other."""
    task, form = options.task, options.output
    if task == "detect" and options.refine != "guided":
        raise OptionsConflict('The task "detect" has no alpha to refine; leave out "refine".')
    if task == "detect" and options.strokes:
        raise OptionsConflict('The task "detect" has no alpha to correct; leave out "strokes".')
    if task == "detect" and form != Output():
        raise OptionsConflict('The task "detect" returns JSON; "output" must be empty.')
    if options.instances == "each" and not (everything or (task in ("cutout", "mask") and options.prompts)):
        raise OptionsConflict('"instances" can be "each" only for the tasks cutout and mask with a prompt.')
    if options.strokes and (everything or options.instances == "each"):
        raise OptionsConflict('"strokes" need one result: "instances" must be "union", and sam and sam2 need a prompt.')
    if options.engine == PROMPTED_ENGINE and not options.prompts:
        raise OptionsConflict(f'The engine "{PROMPTED_ENGINE}" needs a prompt.')
    if options.edit and task != "replace":
        raise OptionsConflict('"edit" needs the task "replace".')
    if task != "replace":
        return
    if (options.edit is None) == (form.background is None):
        raise OptionsConflict('The task "replace" needs either "output.background" or "edit".')
    if form.channels == "alpha":
        raise OptionsConflict('"output.channels" must be "rgba" with the task "replace"; got "alpha".', "channels")


def parsed(data: Any) -> dict[str, Any]:
    """Parses each field of an options object on its own; null means absent. The result always has `prompts`,
    `strokes` and `output`, a dictionary. Raises InvalidOptions, InvalidPrompt and UnknownEngine."""
    data = {} if data is None else data
    if not isinstance(data, dict):
        raise InvalidOptions(f"Options must be an object with the fields {', '.join(JSON_FIELDS)}; got {data!r:.80}.")
    if unknown := set(data) - set(JSON_FIELDS):
        raise InvalidOptions(
            f"Unknown option {', '.join(sorted(map(repr, unknown)))}; options are {', '.join(JSON_FIELDS)}."
        )
    values: dict[str, Any] = {}
    for name, choices in (("task", get_args(Task)), ("instances", get_args(Instances)), ("refine", get_args(Refine))):
        if (value := data.get(name)) is not None:
            if value not in choices:
                raise InvalidOptions(f'"{name}" must be one of {", ".join(choices)}; got {value!r:.80}.')
            values[name] = value
    if (chosen := data.get("engine")) is not None:
        if not isinstance(chosen, str):
            raise InvalidOptions(f'"engine" must be the name of an engine (a string); got {chosen!r:.80}.')
        values["engine"] = engine(chosen)
    if (score := data.get("review_below")) is not None:
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise InvalidOptions(f'"review_below" must be a number from 0 to 1; got {score!r:.80}.')
        values["review_below"] = round(float(score), 4)  # as a score; a table has no number below 1e-130
    if (edit := data.get("edit")) is not None:
        values["edit"] = Edit.from_json(edit)
    prompts = prompts_from_json(data.get("prompt"))
    strokes = strokes_from_json(data.get("strokes"))
    return {**values, "prompts": prompts, "strokes": strokes, "output": output.parsed(data.get("output"))}
