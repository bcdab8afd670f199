"""docs/capacity.md: the command of its smallest size gives the figures of its tables."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.app import app
from cli.plan import text_of
from local.config import ROOT

PAGE = (ROOT / "docs" / "capacity.md").read_text()

SIZE = "10,000 a day"


def rows(size: str) -> list[list[str]]:
    """Returns the cells after the first one of each table row of a size."""
    found = re.findall(rf"^\| {re.escape(size)} \| (.+) \|$", PAGE, re.MULTILINE)
    return [row.split(" | ") for row in found]


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    command = rows(SIZE)[0][0].strip("`")
    words = shlex.split(command)
    assert words[:2] == ["maskdrop", "plan"]
    result = CliRunner().invoke(app, [*words[1:], "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_the_table_of_sizes_has_the_simulated_instances_and_times(record: dict[str, Any]) -> None:
    times = record["completion_s"]
    assert rows(SIZE)[0][1:] == [str(record["instances"]), *(text_of(times[name]) for name in ("p50", "p95", "p99"))]


def test_the_table_of_costs_has_the_simulated_costs(record: dict[str, Any]) -> None:
    usd = {name: amount for name, amount in record["usd"].items() if not name.startswith("storage")}
    rest = usd["SQS and SNS"] + usd["Lambda"] + usd["logs"]
    columns = [*(usd[name] for name in ("instances", "S3 requests", "DynamoDB", "EventBridge")), rest]
    total = sum(usd.values())
    assert rows(SIZE)[1] == [*(f"{amount:.2f}" for amount in (*columns, total)), f"{total / 10_000 * 1000:.3f}"]


def test_the_table_of_limits_has_the_first_simulated_limits(record: dict[str, Any]) -> None:
    shares = [f"{limit['peak'] / limit['allowed']:.0%}" for limit in record["limits"][:3]]
    assert re.findall(r", (\d+%):", " | ".join(rows(SIZE)[2])) == shares
