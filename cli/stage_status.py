"""The state of a deployed stage: jobs, queues, endpoints, alarms, last errors. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import typer

from cli.audit import deployed
from cli.checks import deployed as checks
from cli.checks.account import Account
from cli.terminal import FAILED, console, print_errors
from local.audit import Deployed, messages_of
from maskdrop.job import Job, State
from maskdrop.services import Selection

RECENT = timedelta(days=1)
"""Finished jobs of this time are counted, and their errors shown."""

COUNTED = 1000
"""Jobs of one state that are counted: two reads of the table. More are shown as "1000+"."""

ERRORS = 5
"""Failed jobs that are shown."""


@dataclass(frozen=True, slots=True)
class Status:
    """jobs: state -> number, at most COUNTED + 1; done and failed of the time RECENT. queues: name -> messages.
    endpoints: name -> state. alarms: name -> description, of those that are raised. errors: of the last failed jobs."""

    jobs: Mapping[State, int]
    queues: Mapping[str, int]
    endpoints: Mapping[str, str]
    alarms: Mapping[str, str]
    errors: list[dict[str, str]]


def print_status(stage: str, *, as_json: bool) -> None:
    """Prints the status of a stage. Exits 1 if an alarm is raised."""
    with print_errors(), deployed(stage) as (account, stores):
        found = status_of(account, stores, datetime.now(UTC))
    if as_json:
        console.print(json.dumps(asdict(found), ensure_ascii=False), markup=False, soft_wrap=True)
    else:
        for line in lines(found):
            console.print(line, markup=False, soft_wrap=True)
    if found.alarms:
        raise typer.Exit(FAILED)


def status_of(account: Account, stores: Deployed, now: datetime) -> Status:
    jobs: dict[State, list[Job]] = {}
    for state in get_args(State):
        since = now - RECENT if state in ("done", "failed") else None
        jobs[state] = stores.jobs.page(Selection(state=state, since=since), before="", limit=COUNTED + 1).jobs
    return Status(
        jobs={state: len(found) for state, found in jobs.items()},
        queues={name: messages_of(stores.sqs, url) for name, url in stores.queues.items()},
        # The local stack has the runtime of SageMaker, without the operations that describe an endpoint.
        endpoints={} if account.local else {line.name: line.finding for line in checks.endpoints(account)},
        alarms=_raised(account),
        errors=[
            {"job": job.id, "source": job.source.key, "code": job.error.code, "message": job.error.message}
            for job in jobs["failed"][:ERRORS]
            if job.error
        ],
    )


def lines(status: Status) -> list[str]:
    """Returns the lines of the text."""
    counts = {state: f"{COUNTED}+" if count > COUNTED else str(count) for state, count in status.jobs.items()}
    return [
        f"jobs: {counts['queued']} queued, {counts['submitted']} submitted; "
        f"in the last 24 hours {counts['done']} done, {counts['failed']} failed",
        "messages: " + ", ".join(f"{name} {count}" for name, count in status.queues.items()),
        *(f"endpoint {name}: {finding}" for name, finding in status.endpoints.items()),
        *(f"alarm {name}: {description}" for name, description in status.alarms.items()),
        *([] if status.alarms else ["no alarm is raised"]),
        *(f"failed {one['job']}  {one['source']}  {one['code']}: {one['message']}" for one in status.errors),
    ]


def _raised(account: Account) -> dict[str, str]:
    """Returns the raised alarms of the stage's stacks: name without stack and suffix -> description. Omits the alarm
    that starts the first instance."""
    found: dict[str, str] = {}
    ours = tuple(f"{stack}-" for stack in account.stacks)
    alarm: dict[str, Any]
    for alarm in account.pages("cloudwatch", "describe_alarms", "MetricAlarms", StateValue="ALARM"):
        name = alarm["AlarmName"]
        if name.startswith(ours) and "AsleepWithWork" not in name:
            stack = next(one for one in ours if name.startswith(one))
            found[name.removeprefix(stack)] = alarm.get("AlarmDescription", "")
    return found
