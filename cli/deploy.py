"""Deploy a stage and destroy it: the command of the AWS CDK in its pinned version, after the checks of `doctor`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from cli.checks import examine
from cli.checks.account import CDK
from cli.doctor import account_of, report
from cli.terminal import FAILED, INTERRUPTED, UsageError, console, messages, print_errors
from infra import stages
from local.config import ROOT, LocalError

StageName = Annotated[str, typer.Option("--stage", help="Stage: the name of a file in stages/.")]


def deploy(
    stage: StageName = "dev",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Deploy without the question about changed IAM permissions.")
    ] = False,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Run the checks of `doctor` first.")] = True,
    bootstrap: Annotated[
        bool, typer.Option("--bootstrap", help="Prepare the account and Region for the CDK first; needed once.")
    ] = False,
) -> None:
    """Deploy a stage to your AWS account. Stops before a change if a check fails. Exits 1 if the deploy fails; a
    repeated command continues."""
    with print_errors():
        _check(stage)
        if bootstrap:
            _cdk("bootstrap", f"--context=stage={stage}")
        if check:
            with console.status("Checking the account"):
                lines = [line for line in examine(account_of(stage)) if line.level not in ("ok", "not checked")]
            for part in report(lines) if lines else ():
                console.print(part, soft_wrap=not isinstance(part, Table))
            if any(line.level == "fails the deploy" for line in lines):
                raise LocalError("Nothing was deployed. Follow the remedies above, or use --no-check.")
        approval = "never" if yes else "broadening"
        _cdk("deploy", "--all", f"--context=stage={stage}", f"--require-approval={approval}")


def destroy(
    stage: StageName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Destroy without a question.")] = False,
) -> None:
    """Delete the stacks of a stage from your AWS account, with the images and jobs that docs/operations.md lists.
    You type the name of the stage first. Exits 1 if a stack remains; a repeated command continues."""
    with print_errors():
        _check(stage)
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("destroy needs the name of the stage from a terminal; without one, use --yes.")
            if typer.prompt(f"This deletes the stacks of {stage}. Type the name of the stage") != stage:
                raise UsageError(f"The name was not {stage}. Nothing was deleted.")
        _cdk("destroy", "--all", f"--context=stage={stage}", "--force")


def _check(stage: str) -> None:
    """Raises UsageError for a stage of the local stack, InvalidStage for one without a valid file."""
    if stage.startswith("local"):
        raise UsageError(
            f"The stage {stage} is that of the local stack: `maskdrop up`. Name a stage for AWS, such as dev."
        )
    stages.load(stage)


def cdk_command(words: Sequence[str]) -> list[str]:
    """Returns the command line of the CDK, with npx of this environment or of PATH. Raises LocalError without npx."""
    own = Path(sys.executable).parent
    npx = shutil.which("npx", path=f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if npx is None:
        raise LocalError("npx was not found: run `pip install -r requirements.txt`, which brings Node.js.")
    return [npx, "--yes", CDK.split()[1], *words]


def _cdk(*words: str) -> None:
    """Runs the CDK in the folder of the project, with this environment's Python first in PATH.

    Raises typer.Exit if it fails, and after Ctrl-C: CloudFormation then completes the stack in progress by itself.
    """
    own = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{own}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    with subprocess.Popen(cdk_command(words), cwd=ROOT, env=env) as process:  # noqa: S603  fixed arguments
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # the terminal sends SIGINT to the CDK, too
            messages.print(
                "Interrupted. CloudFormation completes the stack in progress; repeat the command to continue."
            )
            raise typer.Exit(INTERRUPTED) from None
    if status:
        raise typer.Exit(FAILED)
