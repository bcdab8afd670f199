"""Console, errors and exit codes shared by all commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from maskdrop.errors import InvalidOptions, InvalidPrompt, MaskdropError, UnknownEngine

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes of all commands; docs/command.md describes them. 130 is that of a shell after SIGINT: 128 + 2."""

CONTROL = {code: f"\\u{code:04x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
"""Control characters and their escapes, also in JSON: a file name must not send commands to the terminal."""


class PlainConsole(Console):
    """Prints control characters of texts as escapes. Colours are styles, not characters."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(text.translate(CONTROL), **options)


console = PlainConsole(highlight=False, width=None if sys.stdout and sys.stdout.isatty() else 110)

messages = PlainConsole(highlight=False, stderr=True)
"""Standard error: messages of commands that print JSON or an image to standard output."""


class UsageError(MaskdropError):
    """The arguments or options of a command exclude each other."""

    code = "usage"


class Unreachable(MaskdropError):
    """An API, a stack or an account does not respond, or no profile names one."""

    code = "unreachable"


def exit_code(error: MaskdropError) -> int:
    if isinstance(error, Unreachable) or error.code == "not_running":
        return UNREACHABLE
    return USAGE if isinstance(error, UsageError | InvalidOptions | InvalidPrompt | UnknownEngine) else FAILED


@contextmanager
def print_errors() -> Iterator[None]:
    """Prints a MaskdropError without a traceback and exits with its exit code."""
    try:
        yield
    except MaskdropError as error:
        messages.print(f"[red]{escape(error.message)}[/red]", soft_wrap=True)
        raise typer.Exit(exit_code(error)) from error
