"""Processes photos without a stack (cutout, mask, detect, replace, repaint), also by the verbs of rembg (i, p, s, b),
over HTTP (serve), for assistants (mcp), from an SQS queue (worker) and in Telegram (bot). Moves from remove.bg
(migrate). Sends photos to a stack (submit, status, fetch, list, retry). Manages the local stack (run, up, down, reset,
status), API keys (keys), presets (presets), failed jobs (redrive), model weights (models), data sets (data), training
(train, tune, blend), evaluation (evaluate, compare, promote), detectors (detector) and model export (export). Checks an
account (doctor), deploys and destroys a stage (deploy, destroy), and tests and reports one (smoke, logs, costs)."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path

import typer

from cli.commands import CommandGroup

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)


@app.callback()
def _main() -> None:
    """The commands are those of `cli.commands.COMMANDS`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115  for the whole process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Names of files may have bytes that are not UTF-8, and a terminal may know ASCII alone.
            stream.reconfigure(errors="backslashreplace")
