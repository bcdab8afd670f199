"""Retries failed jobs in bulk."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Annotated, Literal

import typer

from cli.keys import Stage
from cli.terminal import console, print_errors
from local.redrive import Progress, job_services
from local.redrive import redrive as redrive_jobs
from maskdrop.errors import error_kinds
from maskdrop.services import Selection


def redrive(
    *,
    stage: Stage = None,
    state: Annotated[
        Literal["failed", "queued"],
        typer.Option(help="State of the jobs; queued jobs get another message."),
    ] = "failed",
    code: Annotated[str, typer.Option(help="Only jobs with this error code, such as gave_up.")] = "",
    prefix: Annotated[str, typer.Option(help="Only sources with this key prefix, such as inbox/summer/.")] = "",
    since: Annotated[datetime | None, typer.Option(help="Only jobs that failed at or after this time (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only jobs that failed before this time (UTC).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the jobs; change none.")] = False,
) -> None:
    """Retry failed jobs. May be interrupted and repeated. Example: redrive --code gave_up --since 2026-11-20"""
    selection = Selection(state=state, prefix=prefix, since=_utc(since), until=_utc(until))
    progress, interrupted = Progress(), False
    with print_errors(), job_services(stage) as services, console.status("Retrying") as status:
        try:
            for progress in redrive_jobs(services, selection, code=code, dry_run=dry_run):
                status.update(f"{progress.matched} jobs")
        except KeyboardInterrupt:
            interrupted = True
    if dry_run:
        console.print(f"{_jobs(progress.matched)} would be retried.")
    else:
        console.print(f"Retried {progress.retried} of {_jobs(progress.matched)}.")
    if not progress.matched and code not in error_kinds():
        for similar in get_close_matches(code, error_kinds(), n=1):
            console.print(f"No job has the code {code}; did you mean {similar}?", markup=False)
    for reason, count in progress.skipped.most_common():
        console.print(f"Skipped {count}: {reason}", markup=False, soft_wrap=True)
    if interrupted:
        console.print("Interrupted: repeat the command to retry the other jobs.")
        raise typer.Exit(130)


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=UTC)
