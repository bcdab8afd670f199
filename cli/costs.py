"""Print the usage of a month, and on request its costs from AWS Cost Explorer."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from cli.profiles import ProfileFlag, client_of
from cli.terminal import Unreachable, UsageError, console, messages, print_errors
from infra.stages import STAGE_TAG
from local.account import client_in

REQUEST_USD = 0.01
"""Price of a request to Cost Explorer in US dollars. Source: AWS Cost Management pricing."""

COST_EXPLORER_REGION = "us-east-1"
"""Region of the only endpoint of Cost Explorer."""


def costs(
    month: Annotated[str | None, typer.Option(help="Month as YYYY-MM (UTC).", show_default="the current month")] = None,
    aws: Annotated[
        str | None,
        typer.Option(
            "--aws",
            metavar="STAGE",
            help=f"Also the costs of a stage by service, from AWS Cost Explorer; ${REQUEST_USD} a request "
            "(default: none).",
        ),
    ] = None,
    profile: ProfileFlag = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print the usage of the API key's owner in a month: images, generated images and refused requests."""
    with print_errors():
        first = _first_day(month)
        record: dict[str, Any] = {"month": f"{first:%Y-%m}"}
        if aws is None or profile is not None:
            with client_of(profile) as client:
                usage = client.usage(f"{first:%Y-%m}")
            record |= {"owner": usage.owner, "images": usage.pictures, "refused": usage.refused}
            record |= {"generated": usage.generated, "generated_usd": usage.generated_usd}
        if aws is not None:
            messages.print(f"Cost Explorer charges ${REQUEST_USD} a request.")
            try:
                record["aws_usd"] = by_service(client_in(COST_EXPLORER_REGION, "ce"), aws, first)
            except (BotoCoreError, ClientError) as error:
                raise Unreachable(f"Cost Explorer cannot be read: {error}") from error
    if as_json:
        console.print(json.dumps(record, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    if "owner" in record:
        console.print(
            f"{record['month']}, owner {record['owner']}: {record['images']} images, {record['generated']} generated "
            f"(${record['generated_usd']:.2f}), {record['refused']} requests refused.",
            markup=False,
            soft_wrap=True,
        )
    if "aws_usd" in record:
        for service, usd in sorted(record["aws_usd"].items(), key=lambda pair: -pair[1]):
            console.print(f"{usd:10.4f} USD  {service}", markup=False)
        total = sum(record["aws_usd"].values())
        console.print(f"{total:10.4f} USD  stage {aws}, {record['month']}, by the tag {STAGE_TAG}", markup=False)
        if not record["aws_usd"]:
            console.print(
                f"Cost Explorer has no costs with the tag {STAGE_TAG} = {aws}. Activate it as a cost allocation tag "
                "in the console of Billing; it counts from the next day.",
                soft_wrap=True,
            )


def by_service(explorer: Any, stage: str, first: date) -> dict[str, float]:
    """Returns the costs of a stage in a month by AWS service, in US dollars. One request for each page of services."""
    arguments: dict[str, Any] = {
        "TimePeriod": {"Start": first.isoformat(), "End": _next_month(first).isoformat()},
        "Granularity": "MONTHLY",
        "Metrics": ["UnblendedCost"],
        "Filter": {"Tags": {"Key": STAGE_TAG, "Values": [stage]}},
        "GroupBy": [{"Type": "DIMENSION", "Key": "SERVICE"}],
    }
    found: dict[str, float] = {}
    while True:
        page = explorer.get_cost_and_usage(**arguments)
        for period in page["ResultsByTime"]:
            for group in period["Groups"]:
                (service,) = group["Keys"]
                found[service] = found.get(service, 0.0) + float(group["Metrics"]["UnblendedCost"]["Amount"])
        if not page.get("NextPageToken"):
            return {service: usd for service, usd in found.items() if usd}
        arguments["NextPageToken"] = page["NextPageToken"]


def _first_day(month: str | None) -> date:
    if month is None:
        return datetime.now(UTC).date().replace(day=1)
    try:
        return datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise UsageError(f"--month must be YYYY-MM; got {month}.") from error


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)
