"""Options of a job from the flags of a command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from maskdrop.catalog import DEFAULT_ENGINE, ENGINES, PROMPTED_ENGINE, Task
from maskdrop.edit import Change
from maskdrop.errors import InvalidOptions, InvalidPrompt
from maskdrop.options import Instances, Options, Refine
from maskdrop.output import FIELDS
from maskdrop.presets import PRESETS
from maskdrop.prompt import Select

LabelFlag = Annotated[
    list[str] | None, typer.Option("--label", help="Label to find, such as face or person; repeatable.")
]
BoxFlag = Annotated[
    list[str] | None,
    typer.Option("--box", help="Box around a subject: x0,y0,x1,y1 in pixels of the upright image; repeatable."),
]
PointFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--point",
        help="Point on the subject: x,y in pixels; x,y,0 for a point on the background; repeatable. With --label, "
        "points select the instances that contain them.",
    ),
]
SelectFlag = Annotated[
    Select | None, typer.Option("--select", help="Instances of a label: all or the largest.", show_default="all")
]
ConfidenceFlag = Annotated[
    float | None,
    typer.Option(
        "--min-confidence", help="Minimum confidence of labels in percent.", show_default="that of the detector"
    ),
]
IgnoreFlag = Annotated[
    list[str] | None, typer.Option("--ignore", help="Label or box to remove from the subject; repeatable.")
]
PromptFlag = Annotated[
    str | None,
    typer.Option("--prompt", metavar="JSON", help="Prompts as JSON, instead of the flags above (default: none)."),
]
InstancesFlag = Annotated[
    Instances | None,
    typer.Option(
        "--instances", help="each: also one result for each instance; union: one result.", show_default="union"
    ),
]
RefineFlag = Annotated[
    Refine | None,
    typer.Option(
        "--refine",
        help="Refinement of the edges: guided filter, or vitmatte where its weights are installed.",
        show_default="guided",
    ),
]
ReviewFlag = Annotated[
    float | None,
    typer.Option(
        "--review-below",
        min=0,
        max=1,
        help="Lowest subject.score of a result that needs no review.",
        show_default="calibrated for auto, 0 for other engines",
    ),
]
EngineFlag = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help=f"Engine: {', '.join(name for name, row in ENGINES.items() if row.returns == 'alpha')}.",
        show_default=f"{DEFAULT_ENGINE['cutout']}; {PROMPTED_ENGINE} with a prompt",
    ),
]
DetectorFlag = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help=f"Detector: {', '.join(name for name, row in ENGINES.items() if row.returns == 'boxes')}.",
        show_default=DEFAULT_ENGINE["detect"],
    ),
]
PresetFlag = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help=f"Preset: {', '.join(PRESETS)}. Its options apply where no other option replaces them (default: none).",
    ),
]
OutputFlag = Annotated[
    list[str] | None,
    typer.Option("--output", metavar="FIELD=VALUE", help=f"Output option: {', '.join(FIELDS)}; repeatable."),
]

TextFlag = Annotated[
    list[str] | None, typer.Option("--text", help="Text from which the editor generates the background; repeatable.")
]
SeedFlag = Annotated[
    list[int] | None,
    typer.Option(
        "--seed", help="Seed of the editor; repeatable: one candidate for each text and seed.", show_default="0"
    ),
]
NegativeTextFlag = Annotated[
    str | None, typer.Option("--negative-text", help="Text that the images must not show (default: none).")
]
ChangeFlag = Annotated[
    Change, typer.Option("--change", help="Part that the editor generates; the other part keeps its pixels.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptFlags:
    """The flags from which prompts are made. Each `label`, `box` and `ignore` is a prompt of its own.

    points: select instances of the labels; without labels they belong to the only box, else they are a prompt of their
    own. min_confidence: of all labels, in percent. prompt: JSON, instead of the other flags.
    """

    labels: Sequence[str] = ()
    boxes: Sequence[str] = ()
    points: Sequence[str] = ()
    select: Select | None = None
    min_confidence: float | None = None
    ignore: Sequence[str] = ()
    prompt: str | None = None

    def to_json(self) -> Any:
        """Returns the field "prompt" of options. Raises InvalidPrompt."""
        if not self.labels and (self.select or (self.min_confidence is not None and not self.ignore)):
            raise InvalidPrompt("--select and --min-confidence need --label.")
        points, chosen = _points(self.points), self._confidence()
        if self.select:
            chosen["select"] = self.select
        kept: list[dict[str, Any]] = [{"label": label, **chosen, **points} for label in self.labels]
        kept += [{"box": _numbers("--box", box, 4)} for box in self.boxes]
        if points and not self.labels:
            if len(kept) == 1:
                kept[0] |= points
            else:
                kept.append(points)
        ignored = [self._ignored(text) for text in self.ignore]
        if self.prompt is None:
            return [*kept, *ignored] or None
        if kept or ignored:
            raise InvalidPrompt("--prompt replaces the other flags of prompts; use one or the other.")
        try:
            return json.loads(self.prompt)
        except ValueError as error:
            raise InvalidPrompt(f"--prompt must be JSON; got {self.prompt!r:.80}.") from error

    def _ignored(self, text: str) -> dict[str, Any]:
        if "," in text:
            return {"box": _numbers("--ignore", text, 4), "mode": "ignore"}
        return {"label": text, "mode": "ignore", **self._confidence()}

    def _confidence(self) -> dict[str, Any]:
        return {} if self.min_confidence is None else {"min_confidence": self.min_confidence}


def options_of(
    task: Task,
    prompts: PromptFlags,
    *,
    engine: str | None = None,
    output: Sequence[str] = (),
    instances: Instances | None = None,
    edit: dict[str, Any] | None = None,
    background: str | None = None,
    refine: Refine | None = None,
    review_below: float | None = None,
    preset: str | None = None,
) -> Options:
    """Returns the options of a command. background: replaces the field "background" of `output`.

    preset: name of a built-in preset of the task; the other options replace its options, and each field of `output` on
    its own. Raises what `Options.from_json` raises.
    """
    fields = output_of(output)
    if background is not None:
        fields["background"] = background
    given = {
        "task": task,
        "engine": engine,
        "prompt": prompts.to_json(),
        "instances": instances,
        "edit": edit,
        "refine": refine,
        "review_below": review_below,
    }
    base = {} if preset is None else _preset(preset, task)
    return Options.from_json(
        base
        | {name: value for name, value in given.items() if value is not None}
        | {"output": base.get("output", {}) | fields}
    )


def _preset(name: str, task: Task) -> dict[str, Any]:
    """Returns the options of a built-in preset, without the default engine, as JSON. Raises InvalidOptions."""
    preset = PRESETS.get(name)
    if not preset:
        raise InvalidOptions(
            f"--preset must be one of {', '.join(PRESETS)}; got {name!r:.80}. Presets of a stage apply to jobs: "
            "`maskdrop submit --preset`."
        )
    fields = preset.to_json()
    if preset.engine == DEFAULT_ENGINE[task]:
        del fields["engine"]  # a prompt needs another engine
    return fields


def edit_of(
    texts: Sequence[str] | None, seeds: Sequence[int] | None, negative_text: str | None, change: Change
) -> dict[str, Any] | None:
    """Returns the object "edit"; None without texts. Raises InvalidOptions for the other flags without a text."""
    if texts:
        return {"prompts": [*texts], "negative_prompt": negative_text, "seeds": [*(seeds or (0,))], "change": change}
    if seeds or negative_text or change != "background":
        raise InvalidOptions("--seed, --negative-text and --change need --text.")
    return None


def output_of(fields: Sequence[str]) -> dict[str, Any]:
    """Returns the object "output" of texts FIELD=VALUE. Raises InvalidOptions."""
    pairs = [field.partition("=") for field in fields]
    if invalid := [field for field, (_, equals, _) in zip(fields, pairs, strict=True) if not equals]:
        raise InvalidOptions(f"Output options must have the form FIELD=VALUE; got {invalid[0]!r}.")
    return {field: value for field, _, value in pairs}


def _points(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the fields "points" and "labels" of a prompt; {} without points."""
    parsed = [_numbers("--point", text, 3 if text.count(",") > 1 else 2) for text in texts]
    if not parsed:
        return {}
    return {"points": [[*one[:2]] for one in parsed], "labels": [one[2] if len(one) > 2 else 1 for one in parsed]}


def _numbers(flag: str, text: str, count: int) -> list[float]:
    """Parses numbers separated by commas. Raises InvalidPrompt."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        form = {"--point": "x,y or x,y,label", "--ignore": "a label or x0,y0,x1,y1"}.get(flag, "x0,y0,x1,y1")
        raise InvalidPrompt(f"{flag} must be {form} in pixels; got {text!r:.80}.")
    return values
