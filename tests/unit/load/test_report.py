"""Outcomes, limits and the report of the load test."""

from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.load.ledger import Ledger
from tests.load.observe import Sample
from tests.load.report import ERROR, JOB, OK, REFUSED, Outcomes, Report, exceeded, outcome, percentile
from tests.load.settings import LoadSettings, Mix

LIMITS = Mix(users={}, errors=0.1, refused=0, p95_s={"/v1/cutouts": 2})


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [
        (200, {}, OK),
        (202, {}, OK),
        (303, {}, OK),
        (429, {"Retry-After": "3"}, REFUSED),
        (503, {"Retry-After": "5"}, REFUSED),
        (503, {}, ERROR),
        (504, {"Retry-After": "5"}, ERROR),
        (500, {}, ERROR),
        (403, {}, ERROR),
        (0, {}, ERROR),
    ],
)
def test_a_refusal_is_429_or_503_that_states_when_to_retry(status: int, headers: dict[str, str], expected: str) -> None:
    assert outcome(status, headers) == expected


@pytest.mark.parametrize(("share", "value"), [(0.5, 2), (0.75, 3), (0.95, 4), (1, 4)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile([4, 1, 3, 2], share) == value
    assert math.isnan(percentile([], share))


def outcomes(ok: int = 0, refused: int = 0, error: int = 0, seconds: float = 1) -> Outcomes:
    made = Outcomes()
    for what, count in ((OK, ok), (REFUSED, refused), (ERROR, error)):
        for _ in range(count):
            made.add("/v1/cutouts", what, seconds, 100.0, "500 Broken")
    return made


def ledger(accepted: int = 0) -> Ledger:
    made = Ledger(lambda _path, _query: None)
    for number in range(accepted):
        made.accept(str(number), "drop", datetime(2026, 1, 1, tzinfo=UTC))
    return made


@pytest.mark.parametrize(
    ("run", "jobs", "expected"),
    [
        (outcomes(ok=9, error=1), 0, []),
        (outcomes(ok=8, error=2), 0, ["`error` is 0.2000"]),
        (outcomes(ok=99, refused=1), 0, ["`refused` is 0.0100"]),
        (outcomes(ok=9, seconds=3), 0, ["95th percentile of `/v1/cutouts` is 3.0 s"]),
        (outcomes(ok=9), 2, ["2 accepted jobs reached no final state"]),
        (outcomes(), 0, ["No request was sent"]),
    ],
)
def test_a_run_fails_when_it_exceeds_a_limit(run: Outcomes, jobs: int, expected: list[str]) -> None:
    found = exceeded(LIMITS, run, ledger(jobs))
    assert len(found) == len(expected)
    assert all(part in sentence for part, sentence in zip(expected, found, strict=True))


def test_the_report_has_tables_a_plot_and_one_page_without_other_files(tmp_path: Path) -> None:
    run = outcomes(ok=3, refused=1)
    run.add(JOB, OK, 4, 103.0)
    report = Report(
        settings=LoadSettings(report=tmp_path),
        outcomes=run,
        ledger=ledger(),
        samples=[Sample(at=100 + second, queued=5, backlog=2, desired=1, ready=0) for second in range(4)],
        began=99.0,
        seconds=5,
    )
    report.write(tmp_path)
    with (tmp_path / "requests.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert (rows["/v1/cutouts"]["ok"], rows["/v1/cutouts"]["refused"], rows[JOB]["p50_s"]) == ("3", "1", "4")
    with (tmp_path / "seconds.csv").open() as file:
        seconds = list(csv.DictReader(file))
    assert [(row["ok"], row["ended_jobs"]) for row in seconds][:5] == [
        ("0", "0"), ("3", "0"), ("0", "0"), ("0", "0"), ("0", "1"),
    ]  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text())["lost"] == 0
    page = (tmp_path / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "http" not in page.replace("<html", "")
    assert any("refused" in line for line in report.text())


def test_an_error_message_is_shown_as_text(tmp_path: Path) -> None:
    run = outcomes(ok=1)
    run.add("/v1/jobs", ERROR, 1, 100.0, "<script>alert(1)</script>")
    report = Report(
        settings=LoadSettings(report=tmp_path), outcomes=run, ledger=ledger(), samples=[], began=99.0, seconds=2
    )
    assert "<script>" not in report.page(b"")
