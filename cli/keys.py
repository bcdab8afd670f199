"""API keys: create, list, revoke."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.terminal import console, explained
from local.keys import deployment, known, make, take_away
from maskdrop.access import CALLS_A_MINUTE, Scope

app = typer.Typer(no_args_is_help=True, help=__doc__)

Stage = Annotated[
    str | None, typer.Option(help="A stage in your AWS account; by default the stack that is up on this machine.")
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, in your own words.")],
    owner: Annotated[
        str, typer.Option(help="Whose its jobs are; keys of one owner share them.", show_default="its id")
    ] = "",
    scope: Annotated[
        Scope | None,
        typer.Option(help="Which jobs it sees: its owner's or all.", show_default="all for the first key, else own"),
    ] = None,
    rate: Annotated[int, typer.Option(min=1, help="Calls a minute.")] = CALLS_A_MINUTE,
    stage: Stage = None,
) -> None:
    """Makes a key and shows it, this once."""
    with explained(), deployment(stage) as here:
        text, key = make(here, name, owner=owner, scope=scope, rate=rate)
    console.print(f"key             {text}", soft_wrap=True, markup=False)
    console.print(f"webhook secret  {key.webhook_secret}", soft_wrap=True, markup=False)
    console.print(f"id {key.id}, owner {key.owner}, sees {key.scope}. Neither is shown again.", markup=False)


@app.command("list")
def list_(stage: Stage = None) -> None:
    """Lists the keys there are."""
    columns = ("id", "name", "owner", "sees", "calls a minute", "made")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    with explained(), deployment(stage) as here:
        for key in sorted(known(here).values(), key=lambda key: key.created_at):
            made = f"{key.created_at:%Y-%m-%d %H:%M}"
            table.add_row(key.id, escape(key.name), escape(key.owner), key.scope, str(key.rate), made)
    console.print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` has it.")], stage: Stage = None
) -> None:
    """Takes a key away: the next call with it is refused."""
    with explained(), deployment(stage) as here:
        take_away(here, key_id)
    console.print(f"{key_id} is no key any more.", markup=False)
