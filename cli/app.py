"""The command `maskdrop`."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

from cli.commands import CommandGroup

HELP = """Cut out subjects and replace backgrounds: on this machine, by a server, or by a stack in your AWS account.

First steps: `maskdrop cutout photos/ -o out/`, `maskdrop serve`, `maskdrop migrate removebg FOLDER`."""

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"maskdrop {version('maskdrop')}")
        raise typer.Exit


@app.callback()
def _main(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The commands are those of `cli.commands.COMMANDS`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  for the whole process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Names of files may have bytes that are not UTF-8, and a terminal may know ASCII alone.
            stream.reconfigure(errors="backslashreplace")
