"""Print the logs of a stage's functions."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.markup import escape

from cli.keys import Stage
from cli.terminal import INTERRUPTED, Unreachable, UsageError, console, print_errors
from local import stack
from local.account import client_in, region_of_environment
from local.config import LocalConfig, NotRunning
from local.connect import client

POLL_S = 2.0
"""Interval of --follow in seconds. FilterLogEvents allows 5 requests a second in a Region (CloudWatch Logs quotas)."""

OVERLAP_MS = 10_000
"""--follow reads the last 10 seconds again: events appear some seconds after their time."""

ENDPOINT_LOGS = "/aws/sagemaker/Endpoints/"

TRACE = re.compile(r"[0-9a-f]{32}")

AGE = re.compile(r"(\d+)([smhd])")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

SHOWN = ("job_id", "bundle", "code", "why", "outcome", "exception", "path", "status")
"""Fields of a line that are printed as text."""

COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a log. function: last part of the name of its log group. text: JSON of Powertools, or plain text."""

    id: str
    function: str
    at: datetime
    text: str


def logs(
    functions: Annotated[
        list[str] | None, typer.Argument(metavar="FUNCTION", help="Functions, such as api or ingest (default: all).")
    ] = None,
    stage: Stage = None,
    since: Annotated[str, typer.Option(help="Age of the oldest line: a number and s, m, h or d.")] = "1h",
    trace: Annotated[
        str | None,
        typer.Option(
            help="Only lines of one image, by the `trace_id` of its job; also from the endpoints (default: all)."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print new lines until Ctrl-C.")] = False,
    pattern: Annotated[
        str,
        typer.Option("--filter", help="Filter pattern of CloudWatch Logs, such as ERROR or a job id (default: none)."),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as JSON objects.")] = False,
) -> None:
    """Print the logs of the functions of a stage, all in one list by time. CloudWatch charges nothing for it."""
    age = AGE.fullmatch(since)
    with print_errors():
        if age is None:
            raise UsageError(f"--since must be a number and a unit, such as 30m or 2d; got {since}.")
        if trace is not None and not TRACE.fullmatch(trace):
            raise UsageError(f"--trace must be 32 hexadecimal digits, the trace_id of a job; got {trace}.")
        if trace and pattern:
            raise UsageError("--trace and --filter exclude each other.")
        start = datetime.now(UTC) - timedelta(**{UNITS[age[2]]: int(age[1])})
        try:
            name, service = _service(stage)
            groups = groups_of(service, name, functions or ())
            if trace and not functions:
                groups |= endpoint_groups(service, name)
            for event in events(service, groups, start, f'"{trace}"' if trace else pattern, follow=follow):
                _print(event, as_json=as_json)
        except (BotoCoreError, ClientError) as error:
            raise Unreachable(f"The logs cannot be read: {error}") from error
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def groups_of(service: Any, stage: str, functions: Sequence[str]) -> dict[str, str]:
    """Returns the log groups of a stage: name of the function -> name of the group. Raises UsageError without them."""
    prefix = f"/maskdrop/{stage}/"
    pages = service.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    found = {
        group["logGroupName"].removeprefix(prefix): group["logGroupName"]
        for page in pages
        for group in page["logGroups"]
    }
    if not found:
        raise UsageError(f"The stage {stage} has no logs: it is not deployed in this Region, or no function has run.")
    if unknown := set(functions) - set(found):
        raise UsageError(
            f"The stage {stage} has no log of {', '.join(sorted(unknown))}; it has: {', '.join(sorted(found))}."
        )
    return {name: group for name, group in found.items() if not functions or name in functions}


def endpoint_groups(service: Any, stage: str) -> dict[str, str]:
    """Returns the log groups of the stage's endpoints: name of the endpoint without that of the stage -> name of the
    group."""
    prefix = f"{ENDPOINT_LOGS}maskdrop-{stage}-"
    pages = service.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
    names = [group["logGroupName"] for page in pages for group in page["logGroups"]]
    return {name.removeprefix(prefix): name for name in names}


def events(
    service: Any, groups: dict[str, str], start: datetime, pattern: str, *, follow: bool, sleep: Any = time.sleep
) -> Iterator[Event]:
    """Yields the events since a time, in the order of time; with `follow` without an end. Each event once."""
    seen: set[str] = set()
    latest = round(start.timestamp() * 1000)
    while True:
        found = []
        for name, group in groups.items():
            arguments = {"logGroupName": group, "startTime": latest} | ({"filterPattern": pattern} if pattern else {})
            for page in service.get_paginator("filter_log_events").paginate(**arguments):
                for one in page["events"]:
                    at = datetime.fromtimestamp(one["timestamp"] / 1000, UTC)
                    # The emulator's events have no id.
                    event_id = one.get("eventId") or str((one["logStreamName"], one["timestamp"], one["message"]))
                    found.append(Event(event_id, name, at, one["message"].rstrip()))
        new = sorted((event for event in found if event.id not in seen), key=lambda event: event.at)
        yield from new
        if not follow:
            return
        seen = {event.id for event in found}
        if found:
            latest = max(latest, round(max(event.at for event in found).timestamp() * 1000) - OVERLAP_MS)
        sleep(POLL_S)


def _print(event: Event, *, as_json: bool) -> None:
    fields: dict[str, Any] = {}
    with suppress(ValueError):
        parsed = json.loads(event.text)
        fields = parsed if isinstance(parsed, dict) else {}
    if as_json:
        record = {"time": event.at.isoformat(), "function": event.function, **(fields or {"message": event.text})}
        console.print(json.dumps(record, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    level = str(fields.pop("level", ""))
    message = fields.pop("message", event.text)
    rest = {name: value for name, value in fields.items() if name in SHOWN}
    details = "".join(f"  {name}={value}" for name, value in rest.items())
    colour = COLOURS.get(level, "default")
    line = escape(f"{event.at:%H:%M:%S} {event.function:12} {level:7} {message}{details}")
    console.print(f"[{colour}]{line}[/{colour}]", soft_wrap=True)


def _service(stage: str | None) -> tuple[str, Any]:
    """Returns the name of the stage and a client of CloudWatch Logs: in AWS, or of the running local stack."""
    if stage:
        return stage, client_in(region_of_environment(), "logs")
    config = LocalConfig.of_running_stack(os.environ)
    if stack.find(config) is None:
        raise NotRunning
    return config.stage, client(config, "logs")
