"""The command `worker`: the queue worker of the container, on this machine."""

from __future__ import annotations

import os

import typer

from cli.engines import weights_for
from maskdrop.catalog import DEFAULT_ENGINE
from sagemaker_model.__main__ import main

CONTEXT_SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": list[str]()}
"""Leaves all flags to the parser of the container, so that both commands accept the same ones."""


def worker(context: typer.Context) -> None:
    """Process the images that messages in an SQS queue name. Flags and defaults are those of the older worker; list
    them with --help."""
    if "MODEL_WEIGHTS_DIR" not in os.environ and "--help" not in context.args:
        os.environ["MODEL_WEIGHTS_DIR"] = str(weights_for(DEFAULT_ENGINE["cutout"], None))
    raise typer.Exit(main(["worker", *context.args]))
