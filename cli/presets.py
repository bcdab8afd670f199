"""Manage the presets of a stage: list, show, set, remove."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.keys import Stage
from cli.options import (
    ChangeFlag,
    ConfidenceFlag,
    InstancesFlag,
    LabelFlag,
    NegativeTextFlag,
    PromptFlag,
    PromptFlags,
    RefineFlag,
    ReviewFlag,
    SeedFlag,
    SelectFlag,
    TextFlag,
    edit_of,
    options_of,
)
from cli.terminal import console, print_errors
from local.config import LocalError
from local.keys import deployment
from maskdrop.catalog import Task
from maskdrop.errors import InvalidPreset
from maskdrop.options import Options
from maskdrop.output import FIELDS
from maskdrop.presets import FRESH_S, PRESETS, check_name, parsed
from maskdrop.services import Registry

app = typer.Typer(no_args_is_help=True, help=__doc__)

Name = Annotated[str, typer.Argument(help="Preset name: the first folder under inbox/.", show_default=False)]


@app.command("list")
def list_(stage: Stage = None) -> None:
    """List the custom and built-in presets."""
    table = Table(*(Column(name, overflow="fold") for name in ("preset", "type", "task", "engine", "options")))
    with print_errors(), deployment(stage) as target:
        custom = target.registry.list("preset")
    for name in sorted({*PRESETS, *custom}):
        try:
            options = parsed(name, custom[name]) if name in custom else PRESETS[name]
            task, engine, text = str(options.task), options.engine, described(options)
        except InvalidPreset as error:
            task, engine, text = "", "", error.message
        table.add_row(escape(name), "custom" if name in custom else "built-in", task, engine, escape(text))
    console.print(table)


@app.command()
def show(name: Name, stage: Stage = None) -> None:
    """Print the options of a preset as JSON."""
    with print_errors(), deployment(stage) as target:
        console.print_json(data=get(target.registry, name).to_json())


@app.command("set")
def set_(
    name: Name,
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIELD=VALUE...", help=f"Output options: {', '.join(FIELDS)}.", show_default=False),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="Engine (default: the default engine of the task).")] = None,
    task: Annotated[Task, typer.Option(help="Task.")] = "cutout",
    label: LabelFlag = None,
    select: SelectFlag = None,
    min_confidence: ConfidenceFlag = None,
    prompt: PromptFlag = None,
    instances: InstancesFlag = None,
    text: TextFlag = None,
    seed: SeedFlag = None,
    negative_text: NegativeTextFlag = None,
    change: ChangeFlag = "background",
    refine: RefineFlag = None,
    review_below: ReviewFlag = None,
    stage: Stage = None,
) -> None:
    """Create or replace a preset. Example: presets set shop format=jpg canvas=4:5 padding=10% background=white"""
    with print_errors(), deployment(stage) as target:
        options = options_of(
            task,
            PromptFlags(labels=label or (), select=select, min_confidence=min_confidence, prompt=prompt),
            engine=engine,
            output=fields or (),
            instances=instances,
            edit=edit_of(text, seed, negative_text, change),
            refine=refine,
            review_below=review_below,
        )
        put(target.registry, name, options)
    console.print_json(data=options.to_json())
    console.print(f"Photos under inbox/{escape(name)}/ use this preset within {FRESH_S:.0f} seconds.")


@app.command()
def remove(name: Name, stage: Stage = None) -> None:
    """Delete a custom preset. Restores the built-in preset with the same name, if any."""
    with print_errors(), deployment(stage) as target:
        delete(target.registry, name)
    restored = " The built-in preset with this name applies again." if name in PRESETS else ""
    console.print(f"Deleted preset {escape(name)}.{restored}")


def described(options: Options) -> str:
    """Returns the options besides task and engine on one line: prompts and `edit` as JSON, then the output."""
    fields = options.to_json()
    names = ("prompt", "instances", "edit", "refine", "review_below", "strokes")
    chosen = {name: fields[name] for name in names if fields.get(name) not in (None, {}, [])}
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in chosen.items()}
    return " ".join(f"{name}={value}" for name, value in {**texts, **fields["output"]}.items())


def get(registry: Registry, name: str) -> Options:
    """Returns the options of a preset.

    Raises InvalidPreset for invalid stored options, and LocalError when the preset does not exist.
    """
    custom = registry.get("preset", name)
    if custom is not None:
        return parsed(name, custom)
    if name in PRESETS:
        return PRESETS[name]
    raise LocalError(f"Preset {name!r} does not exist; list presets with `maskdrop presets list`.")


def put(registry: Registry, name: str, options: Options) -> None:
    """Stores a preset. Raises InvalidPreset for an invalid name."""
    check_name(name)
    registry.put("preset", name, options.to_json())


def delete(registry: Registry, name: str) -> None:
    """Deletes a custom preset. Raises LocalError when the stage has no custom preset with that name."""
    if registry.get("preset", name) is None:
        raise LocalError(f"Custom preset {name!r} does not exist; list presets with `maskdrop presets list`.")
    registry.delete("preset", name)
