"""Checks calls of `maskdrop`, the CDK and make in pages and workflows: the command and its options exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer

from cli.app import app

ROOT = Path(__file__).parents[2]

CDK = {
    "bootstrap": {"--qualifier"},
    "diff": {"--method", "--context"},
    "deploy": {"--all", "--context", "--require-approval"},
    "destroy": {"--all", "--context"},
}
"""Commands of the CDK command-line interface 2.1148.1 and their options that the project uses."""


def check_maskdrop(words: list[str]) -> None:
    """Fails if the command of `maskdrop WORDS` or one of its options does not exist."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):  # a group
        assert rest, words
        assert rest[0] in command.commands, words
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known, words


def check_cdk(words: list[str]) -> None:
    """Fails if the command of `npx aws-cdk WORDS` is not in the table, or one of its options is not."""
    command, *options = words
    assert {word for word in options if word.startswith("--")} <= CDK[command], words


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
