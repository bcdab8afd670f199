"""Compare the photos, records, results and messages of a stage, and make jobs of photos without one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from cli.checks.account import Account
from cli.doctor import account_of
from cli.keys import Stage
from cli.terminal import FAILED, INTERRUPTED, Unreachable, UsageError, console, messages, print_errors
from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.queue import SqsQueue
from local.audit import LOST_AFTER, STUCK_AFTER, Audit, Deployed
from local.audit import audit as audit_deployed
from local.audit import backfill as backfill_deployed
from maskdrop.job import INBOX_PREFIX
from maskdrop.reconcile import MEANINGS, Kind

SHOWN = 20
"""Findings of one kind that are printed as text. `--json` prints all."""

REPAIRS: dict[Kind, str] = {
    "lost": f"maskdrop backfill {INBOX_PREFIX}{{where}}",
    "duplicate": "delete the record that you do not need: DELETE /v1/jobs/{{id}}",
    "stuck": "queued: maskdrop redrive --state queued{where}; submitted: maskdrop logs sweep{where}",
    "result_missing": "if you did not delete it: DELETE /v1/jobs/{{id}}, then maskdrop backfill with the photo's key",
    "result_differs": "DELETE /v1/jobs/{{id}}, then maskdrop backfill with the photo's key",
    "result_without_record": "delete it if you do not need it: aws s3 rm with its URI",
    "result_of_failed_job": "maskdrop redrive{where}: the job ends with the result that exists",
    "messages_left": "maskdrop logs dead_letters{where}",
}
"""The command or call that repairs the findings of each kind. {where}: the option for the stage."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def audit(
    stage: Stage = None,
    idle: Annotated[
        bool,
        typer.Option(
            "--idle",
            help="The stage processes no photo: unfinished records and messages of every age are findings.",
            show_default=f"photos older than {LOST_AFTER // timedelta(hours=1)} h, records older than "
            f"{STUCK_AFTER // timedelta(hours=1)} h, dead letters",
        ),
    ] = False,
    digests: Annotated[
        bool, typer.Option("--digests", help="Download every result and compare its SHA-256.", show_default="sizes")
    ] = False,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Kind of finding to leave out, such as result_missing (default: none)."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare photos, records, results and messages of a stage. Exits 1 if one is lost, duplicate, stuck or wrong."""
    with print_errors():
        if unknown := set(ignore or ()) - set(MEANINGS):
            raise UsageError(f"--ignore must be one of {', '.join(MEANINGS)}; got {', '.join(sorted(unknown))}.")
        with deployed(stage) as (_, stores), messages.status("Comparing"):
            found = audit_deployed(stores, datetime.now(UTC), idle=idle, digests=digests)
    findings = [finding for finding in found.findings if finding.kind not in (ignore or ())]
    found = Audit(findings, found.photos, found.records, found.results)
    if as_json:
        console.print(json.dumps(asdict(found), ensure_ascii=False), markup=False, soft_wrap=True)
    else:
        _print(found, f" --stage {stage}" if stage else "")
    if findings:
        raise typer.Exit(FAILED)


def backfill(
    prefix: Annotated[
        str, typer.Argument(help=f"Key prefix of the photos, such as {INBOX_PREFIX}summer/.", show_default=False)
    ],
    stage: Stage = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count the photos; make no job.")] = False,
) -> None:
    """Make jobs of the photos of the drop folder that have none, as if they were uploaded now. May be interrupted and
    repeated. Example: backfill inbox/summer/ --dry-run"""
    seen = sent = 0
    interrupted = False
    with print_errors():
        if not prefix.startswith(INBOX_PREFIX):
            raise UsageError(f"PREFIX must begin with {INBOX_PREFIX}, the drop folder; got {prefix}.")
        with deployed(stage) as (account, stores), messages.status("Reading") as progress:
            queue = SqsQueue(account.client("sqs"), stores.queues["Jobs"])
            try:
                for seen, sent in backfill_deployed(stores, queue, prefix, datetime.now(UTC), dry_run=dry_run):
                    progress.update(f"{seen} photos, {sent} without a job")
            except KeyboardInterrupt:
                interrupted = True
    action = "would be queued" if dry_run else "queued"
    console.print(f"{seen} photos below {prefix}, {sent} without a job: {action}.", markup=False, soft_wrap=True)
    if interrupted:
        console.print("Interrupted: repeat the command for the other photos.")
        raise typer.Exit(INTERRUPTED)


def _print(found: Audit, where: str) -> None:
    counts = Counter(finding.kind for finding in found.findings)
    for kind, count in counts.items():
        console.print(f"{kind} ({count}): {MEANINGS[kind]}.", markup=False, soft_wrap=True)
        of_kind = [finding for finding in found.findings if finding.kind == kind]
        for finding in of_kind[:SHOWN]:
            console.print(f"  {finding.subject}: {finding.message}", markup=False, soft_wrap=True)
        if count > SHOWN:
            console.print(f"  {count - SHOWN} more: --json prints all.", markup=False)
        console.print(f"  repair: {REPAIRS[kind].format(where=where)}", markup=False, soft_wrap=True)
    compared = f"{found.photos} photos, {found.records} records and {found.results} results compared"
    console.print(f"{compared}: {len(found.findings) or 'no'} findings.", markup=False)


@contextmanager
def deployed(stage: str | None) -> Iterator[tuple[Account, Deployed]]:
    """Yields the account and the stores of a stage. Converts errors of AWS to Unreachable."""
    try:
        account = account_of(stage)
        yield account, deployed_in(account)
    except (BotoCoreError, ClientError) as error:
        raise Unreachable(f"AWS request failed: {error}") from error


def deployed_in(account: Account) -> Deployed:
    """Returns the stores of the stage of an account. Raises UsageError where it is not deployed."""
    if account.app_stack not in account.stacks:
        raise UsageError(f"The stage {account.stage.name} is not deployed in {account.region or 'this Region'}.")
    outputs = {one["OutputKey"]: one["OutputValue"] for one in account.stacks[account.app_stack]["Outputs"]}
    queues = account.resources(account.app_stack, "AWS::SQS::Queue")
    return Deployed(
        s3=account.client("s3"),
        sqs=account.client("sqs"),
        jobs=JobsTable(account.client("dynamodb"), outputs["JobsTable"], keep_days=account.stage.keep_jobs_days),
        inbox=outputs["InboxBucket"],
        results=outputs["ResultsBucket"],
        queues={name.removeprefix("Queues")[:-8]: url for name, url in sorted(queues.items())},
        keep=timedelta(days=account.stage.keep_jobs_days),
    )
