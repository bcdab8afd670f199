"""Manage API keys: create, list, revoke."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.terminal import console, print_errors
from local.keys import create_key, deployment, list_keys, revoke_key
from maskdrop.access import CALLS_A_MINUTE, Scope

app = typer.Typer(no_args_is_help=True, help=__doc__)

Stage = Annotated[str | None, typer.Option(help="Stage in your AWS account (default: the local stack).")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    owner: Annotated[
        str, typer.Option(help="Owner of the jobs; keys with the same owner share jobs.", show_default="key ID")
    ] = "",
    scope: Annotated[
        Scope | None,
        typer.Option(
            help="Jobs that the key can access: own (its owner's) or all.",
            show_default="all for the first key, else own",
        ),
    ] = None,
    rate: Annotated[int, typer.Option(min=1, help="Rate limit, in requests per minute.")] = CALLS_A_MINUTE,
    stage: Stage = None,
) -> None:
    """Create an API key. Prints the key and its webhook secret, which are not shown again."""
    with print_errors(), deployment(stage) as target:
        text, key = create_key(target, name, owner=owner, scope=scope, rate=rate)
    console.print(f"key             {text}", soft_wrap=True, markup=False)
    console.print(f"webhook secret  {key.webhook_secret}", soft_wrap=True, markup=False)
    console.print(
        f"id {key.id}, owner {key.owner}, scope {key.scope}. The key and the secret are not shown again.", markup=False
    )


@app.command("list")
def list_(stage: Stage = None) -> None:
    """List the API keys."""
    columns = ("id", "name", "owner", "scope", "requests per minute", "created")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    with print_errors(), deployment(stage) as target:
        for key in sorted(list_keys(target).values(), key=lambda key: key.created_at):
            made = f"{key.created_at:%Y-%m-%d %H:%M}"
            table.add_row(key.id, escape(key.name), escape(key.owner), key.scope, str(key.rate), made)
    console.print(table)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Key ID, as listed by `keys list`.")], stage: Stage = None
) -> None:
    """Revoke an API key. Later requests with the key are rejected."""
    with print_errors(), deployment(stage) as target:
        revoke_key(target, key_id)
    console.print(f"Revoked key {key_id}.", markup=False)
