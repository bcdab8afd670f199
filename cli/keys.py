"""Manage API keys: create, list, revoke; set the spending cap of an owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from cli.terminal import Unreachable, console, print_errors
from local.config import NotRunning
from local.keys import Deployment, create_key, deployment, list_keys, revoke_key
from maskdrop.access import CALLS_A_MINUTE, Scope
from maskdrop.spending import list_caps, list_quotas, set_cap, set_quota
from standalone.database import Database
from standalone.registry import SqliteRegistry
from standalone.settings import data_folder

app = typer.Typer(no_args_is_help=True, help=__doc__)

Stage = Annotated[str | None, typer.Option(help="Stage in your AWS account (default: the local stack).")]
Serve = Annotated[bool, typer.Option("--serve", help="Keys of `maskdrop serve` on this machine.")]
Data = Annotated[
    Path | None,
    typer.Option(
        file_okay=False, help="With --serve: its folder of keys and usage.", show_default="~/.local/share/maskdrop"
    ),
]


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
    edit_usd_per_month: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Spending cap of the owner for generated images, in US dollars.",
            show_default="that of the stage",
        ),
    ] = None,
    stage: Stage = None,
    serve: Serve = False,
    data: Data = None,
) -> None:
    """Create an API key. Prints the key and its webhook secret, which are not shown again."""
    with print_errors(), _keys(stage, data, serve=serve) as target:
        text, key = create_key(target, name, owner=owner, scope=scope, rate=rate)
        if edit_usd_per_month is not None:
            set_cap(target.registry, key.owner, edit_usd_per_month)
    console.print(f"key             {text}", soft_wrap=True, markup=False)
    console.print(f"webhook secret  {key.webhook_secret}", soft_wrap=True, markup=False)
    console.print(
        f"id {key.id}, owner {key.owner}, scope {key.scope}. The key and the secret are not shown again.", markup=False
    )


@app.command("list")
def list_(stage: Stage = None, serve: Serve = False, data: Data = None) -> None:
    """List the API keys, and the owners with a spending cap of their own."""
    columns = ("id", "name", "owner", "scope", "requests per minute", "created")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    with print_errors(), _keys(stage, data, serve=serve) as target:
        for key in sorted(list_keys(target).values(), key=lambda key: key.created_at):
            made = f"{key.created_at:%Y-%m-%d %H:%M}"
            table.add_row(key.id, escape(key.name), escape(key.owner), key.scope, str(key.rate), made)
        caps, quotas = list_caps(target.registry), list_quotas(target.registry)
    console.print(table)
    for owner, usd in caps.items():
        console.print(f"Spending cap of {owner}: ${usd:.2f} a month.", markup=False)
    for owner, images in quotas.items():
        console.print(f"Quota of {owner}: {images:,} images a month.", markup=False)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Key ID, as listed by `keys list`.")],
    stage: Stage = None,
    serve: Serve = False,
    data: Data = None,
) -> None:
    """Revoke an API key. Later requests with the key are rejected."""
    with print_errors(), _keys(stage, data, serve=serve) as target:
        revoke_key(target, key_id)
    console.print(f"Revoked key {key_id}.", markup=False)


@app.command()
def cap(
    owner: Annotated[str, typer.Argument(help="Owner of the jobs, as listed by `keys list`.")],
    usd: Annotated[
        float | None,
        typer.Argument(
            min=0, help="US dollars for generated images in a calendar month (UTC).", show_default="that of the stage"
        ),
    ] = None,
    stage: Stage = None,
    serve: Serve = False,
    data: Data = None,
) -> None:
    """Set the spending cap of an owner. Without USD, the owner has that of the stage again."""
    with print_errors(), _keys(stage, data, serve=serve) as target:
        set_cap(target.registry, owner, usd)
    amount = "the stage's cap" if usd is None else f"a cap of ${usd:.2f} a month"
    console.print(f"The owner {owner} has {amount}.", markup=False)


@app.command()
def quota(
    owner: Annotated[str, typer.Argument(help="Owner of the jobs, as listed by `keys list`.")],
    images: Annotated[
        int | None,
        typer.Argument(min=0, help="Images in a calendar month (UTC).", show_default="that of the stage"),
    ] = None,
    stage: Stage = None,
    serve: Serve = False,
    data: Data = None,
) -> None:
    """Set the maximum number of images of an owner. Without IMAGES, the owner has that of the stage again."""
    with print_errors(), _keys(stage, data, serve=serve) as target:
        set_quota(target.registry, owner, images)
    amount = "the stage's quota" if images is None else f"a quota of {images:,} images a month"
    console.print(f"The owner {owner} has {amount}.", markup=False)


@contextmanager
def _keys(stage: str | None, data: Path | None, *, serve: bool) -> Iterator[Deployment]:
    """Yields the store of the keys of `maskdrop serve`, of a stage, or of the local stack."""
    if not serve:
        try:
            with deployment(stage) as target:
                yield target
        except NotRunning as error:
            raise Unreachable(f"{error.message} The keys of `maskdrop serve` need --serve.") from error
        return
    database = Database(data or data_folder())
    try:
        yield Deployment(SqliteRegistry(database))
    finally:
        database.close()
