"""Check an account before a deploy and a stage after it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from textwrap import indent
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from cli.checks import examine
from cli.checks.account import Account, Level, Line
from cli.keys import Stage
from cli.terminal import console, print_errors
from infra import stages
from local import processes
from local.config import REGION, LocalConfig, NotRunning
from local.connect import client

SEVERITY: tuple[Level, ...] = ("fails the deploy", "warning", "not checked", "ok")
"""Levels in the order of their remedies."""

STYLES: dict[Level, str] = {"ok": "green", "warning": "yellow", "fails the deploy": "bold red", "not checked": "dim"}


def doctor(
    stage: Stage = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as JSON.")] = False,
) -> None:
    """Check credentials, bootstrap, quotas and a stage's state. Changes nothing; exits 1 if a line fails the deploy."""
    with print_errors():
        account = account_of(stage)
        with console.status("Checking"):
            lines = list(examine(account))
    if as_json:
        console.print_json(json.dumps([asdict(line) for line in lines]))
    else:
        for part in report(lines):
            console.print(part, soft_wrap=not isinstance(part, Table))
    if any(line.level == "fails the deploy" for line in lines):
        raise typer.Exit(1)


def account_of(stage: str | None) -> Account:
    """Returns the account of a stage, or the running local stack without a stage or with its own.

    Raises MaskdropError when the stage has no file, or the local stack is not running.
    """
    config = LocalConfig.of_running_stack(os.environ)
    if stage and stage != config.stage:
        return Account.in_aws(stages.load(stage))
    if processes.find("emulator", config.state) is None:
        raise NotRunning
    return Account(stages.load(config.stage), REGION, partial(client, config), local=True)


def report(lines: Sequence[Line]) -> list[RenderableType]:
    """Returns a table of the lines, and the remedies below it: a command in a table could not be copied."""
    table = Table(*(Column(name, overflow="fold") for name in ("check", "level", "finding")))
    for line in lines:
        table.add_row(escape(line.name), f"[{STYLES[line.level]}]{line.level}[/]", escape(line.finding))
    by_level = sorted(lines, key=lambda line: SEVERITY.index(line.level))
    remedies = [Text(f"{line.name}:\n{indent(line.remedy, '  ')}") for line in by_level if line.remedy]
    counts = [(level, sum(line.level == level for line in lines)) for level in STYLES]
    summary = ", ".join(f"{count} {level}" for level, count in counts if count)
    return [table, Text(f"{summary}."), *([Text("\nWhat to do:"), *remedies] if remedies else [])]
