"""Console and error handling shared by all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from maskdrop.errors import MaskdropError

console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)

messages = Console(highlight=False, stderr=True)
"""Standard error: messages of commands that print JSON to standard output."""


@contextmanager
def print_errors() -> Iterator[None]:
    """Prints a MaskdropError without a traceback and exits with status 1."""
    try:
        yield
    except MaskdropError as error:
        console.print(f"[red]{escape(error.message)}[/red]", soft_wrap=True)
        raise typer.Exit(1) from error
