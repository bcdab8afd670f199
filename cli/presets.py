"""Presets of a stage: list, show, set, remove."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.keys import Stage
from cli.terminal import console, explained
from local.config import LocalError
from local.keys import deployment
from maskdrop.errors import InvalidOptions, InvalidPreset
from maskdrop.options import Options
from maskdrop.output import FIELDS
from maskdrop.presets import FRESH_S, PRESETS, check_name, parsed
from maskdrop.services import Registry

app = typer.Typer(no_args_is_help=True, help=__doc__)

Name = Annotated[str, typer.Argument(help="The first folder of its photos under inbox/.", show_default=False)]


@app.command("list")
def list_(stage: Stage = None) -> None:
    """Lists the presets there are, the stage's own before the built-in ones."""
    table = Table(*(Column(name, overflow="fold") for name in ("preset", "whose", "engine", "output")))
    with explained(), deployment(stage) as here:
        own = here.registry.list("preset")
    for name in sorted({*PRESETS, *own}):
        try:
            options = parsed(name, own[name]) if name in own else PRESETS[name]
            said = " ".join(f"{field}={value}" for field, value in options.output.to_json().items())
            engine = options.engine
        except InvalidPreset as fault:
            engine, said = "", fault.message
        table.add_row(escape(name), "own" if name in own else "built in", engine, escape(said))
    console.print(table)


@app.command()
def show(name: Name, stage: Stage = None) -> None:
    """Prints a preset's options as JSON."""
    with explained(), deployment(stage) as here:
        console.print_json(data=found(here.registry, name).to_json())


@app.command("set")
def set_(
    name: Name,
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="FIELD=VALUE...", help=f"Of the output: {', '.join(FIELDS)}.", show_default=False),
    ] = None,
    engine: Annotated[str | None, typer.Option(help="The engine; by default that of the task.")] = None,
    stage: Stage = None,
) -> None:
    """Makes a preset, or replaces it, as in: presets set shop format=jpg crop=10% background=white"""
    with explained(), deployment(stage) as here:
        options = put(here.registry, name, fields or [], engine)
    console.print_json(data=options.to_json())
    console.print(f"Photos under inbox/{escape(name)}/ get it within {FRESH_S:.0f} seconds.")


@app.command()
def remove(name: Name, stage: Stage = None) -> None:
    """Takes one of the stage's own presets away. A built-in one of that name is there again."""
    with explained(), deployment(stage) as here:
        take_away(here.registry, name)
    console.print(f"{escape(name)} is {'the built-in one again' if name in PRESETS else 'no preset any more'}.")


def found(registry: Registry, name: str) -> Options:
    """Raises InvalidPreset, and LocalError where there is none."""
    own = registry.get("preset", name)
    if own is not None:
        return parsed(name, own)
    if name in PRESETS:
        return PRESETS[name]
    raise LocalError(f"There is no preset {name!r}; `maskdrop presets list` shows those there are.")


def put(registry: Registry, name: str, fields: list[str], engine: str | None) -> Options:
    """fields: "FIELD=VALUE" of the output. Raises InvalidOptions and UnknownEngine, and changes nothing then."""
    check_name(name)
    pairs = [field.partition("=") for field in fields]
    if wrong := [field for field, equals, _ in pairs if not equals]:
        raise InvalidOptions(f"{wrong[0]!r} is not FIELD=VALUE.")
    options = Options.from_json({"engine": engine, "output": {field: value for field, _, value in pairs}})
    registry.put("preset", name, options.to_json())
    return options


def take_away(registry: Registry, name: str) -> None:
    """Raises LocalError when the stage has no preset of its own by that name."""
    if registry.get("preset", name) is None:
        raise LocalError(f"The stage has no preset {name!r} of its own.")
    registry.delete("preset", name)
