"""Outcomes of requests, limits, and the report: CSV files, a JSON summary, a plot and one HTML page."""

from __future__ import annotations

import base64
import csv
import html
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.load.ledger import Ledger
from tests.load.observe import Sample
from tests.load.settings import LoadSettings, Mix

OK, REFUSED, ERROR = "ok", "refused", "error"
OUTCOMES = (OK, REFUSED, ERROR)

JOB = "drop to done"
"""Name of the row of jobs, from the request until the end."""


def outcome(status: int, headers: Mapping[str, str]) -> str:
    """Returns the outcome of a response. `refused`: 429 or 503 that states when to send the request again."""
    if 200 <= status < 400:
        return OK
    return REFUSED if status in (429, 503) and headers.get("Retry-After", "").isdecimal() else ERROR


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest value that is not below `share` of the values; NaN without values."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


@dataclass(slots=True)
class Outcomes:
    """Requests by name and outcome, with the seconds of the successful ones, and all of them by second."""

    count: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    by_second: dict[int, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ended: Counter[int] = field(default_factory=Counter)
    """Jobs that ended, by second."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Completed tasks, by class of users."""
    causes: Counter[str] = field(default_factory=Counter)
    """Name, status and message of errors and refusals."""

    def add(self, name: str, what: str, seconds: float, at: float, cause: str = "") -> None:
        """at: Unix time of the end in seconds. cause: of an error or a refusal."""
        self.count[name][what] += 1
        if what == OK:
            self.seconds[name].append(seconds)
        if name == JOB:
            self.ended[int(at)] += 1
        else:
            self.by_second[int(at)][what] += 1
        if what != OK:
            self.causes[f"{name}: {cause[:200]}"] += 1

    def ratio(self, what: str) -> float:
        total = sum(count.total() for count in self.count.values())
        return sum(count[what] for count in self.count.values()) / total if total else 0.0

    def rows(self) -> Iterator[dict[str, Any]]:
        for name in sorted(self.count):
            seconds = self.seconds[name]
            yield {
                "name": name,
                **{what: self.count[name][what] for what in OUTCOMES},
                "p50_s": round(percentile(seconds, 0.50), 3),
                "p95_s": round(percentile(seconds, 0.95), 3),
                "p99_s": round(percentile(seconds, 0.99), 3),
            }


def exceeded(limits: Mix, outcomes: Outcomes, ledger: Ledger) -> list[str]:
    """Returns the limits that the run exceeded, as sentences; empty for a run that passes."""
    found = []
    if not outcomes.count:
        found.append("No request was sent.")
    for what, limit in ((ERROR, limits.errors), (REFUSED, limits.refused)):
        if (ratio := outcomes.ratio(what)) > limit:
            found.append(f"The ratio of requests with the outcome `{what}` is {ratio:.4f}; the limit is {limit:g}.")
    for name, limit in limits.p95_s.items():
        if (p95 := percentile(outcomes.seconds[name], 0.95)) > limit:
            found.append(f"The 95th percentile of `{name}` is {p95:.1f} s; the limit is {limit:g} s.")
    if ledger.lost:
        found.append(f"{len(ledger.lost)} accepted jobs reached no final state.")
    return found


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything that one run measured. began: Unix time in seconds. cost_usd: of the instances, None locally."""

    settings: LoadSettings
    outcomes: Outcomes
    ledger: Ledger
    samples: list[Sample]
    began: float
    seconds: float
    cost_usd: float | None = None

    def summary(self) -> dict[str, Any]:
        return {
            "shape": self.settings.shape,
            "mix": self.settings.mix,
            "users": self.settings.users,
            "seconds": round(self.seconds, 1),
            "rates": self.settings.rates,
            "tasks": dict(self.outcomes.tasks),
            "requests": list(self.outcomes.rows()),
            "errors": round(self.outcomes.ratio(ERROR), 5),
            "refused": round(self.outcomes.ratio(REFUSED), 5),
            "causes": dict(self.outcomes.causes.most_common(10)),
            "accepted": self.ledger.accepted,
            "ends": dict(self.ledger.ends),
            "lost": len(self.ledger.lost),
            "instances_most": max((one.ready or 0 for one in self.samples), default=0),
            "cost_usd": self.cost_usd,
            "exceeded": exceeded(self.settings.limits, self.outcomes, self.ledger),
        }

    def write(self, folder: Path) -> None:
        """Writes requests.csv, samples.csv, seconds.csv, summary.json, plot.png and report.html."""
        folder.mkdir(parents=True, exist_ok=True)
        _csv(folder / "requests.csv", self.outcomes.rows())
        _csv(folder / "samples.csv", (one.to_row() for one in self.samples))
        _csv(folder / "seconds.csv", self._seconds())
        (folder / "summary.json").write_text(json.dumps(self.summary(), indent=1) + "\n")
        self.plot(folder / "plot.png")
        (folder / "report.html").write_text(self.page((folder / "plot.png").read_bytes()))

    def _seconds(self) -> Iterator[dict[str, Any]]:
        first, last = int(self.began), int(self.began + self.seconds)
        last = max([last, *self.outcomes.by_second, *self.outcomes.ended])
        for second in range(first, last + 1):
            counted = {what: self.outcomes.by_second[second][what] for what in OUTCOMES}
            yield {"second": second - first, **counted, "ended_jobs": self.outcomes.ended[second]}

    def plot(self, path: Path) -> None:
        """Draws requests and completions, queue depth, and instances over the same time axis."""
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        rows = list(self._seconds())
        width = max(1, round(len(rows) / 120))  # seconds of one bar
        figure, (top, middle, bottom) = pyplot.subplots(3, 1, sharex=True, figsize=(11, 8), layout="constrained")
        colours = {OK: "#2a7f62", REFUSED: "#e0a030", ERROR: "#c0392b"}
        starts = range(0, len(rows), width)
        floor = [0.0] * len(starts)
        for what in OUTCOMES:
            heights = [sum(row[what] for row in rows[start : start + width]) / width for start in starts]
            top.bar(list(starts), heights, width=width, bottom=floor, align="edge", color=colours[what], label=what)
            floor = [one + other for one, other in zip(floor, heights, strict=True)]
        ended = [sum(row["ended_jobs"] for row in rows[start : start + width]) / width for start in starts]
        top.plot([start + width / 2 for start in starts], ended, color="#1b2a49", label="finished jobs")
        top.set_ylabel("per second")
        times = [one.at - self.began for one in self.samples]
        for name, label in (("queued", "SQS jobs"), ("results", "SQS results"), ("backlog", "bundles in the endpoint")):
            middle.plot(times, [_number(getattr(one, name)) for one in self.samples], label=label)
        middle.set_ylabel("queued")
        for name, style in (("desired", "--"), ("ready", "-")):
            values = [_number(getattr(one, name)) for one in self.samples]
            bottom.step(times, values, style, where="post", label=f"{name} instances")
        bottom.set_ylabel("instances")
        bottom.set_ylim(bottom=0)
        bottom.yaxis.get_major_locator().set_params(integer=True)
        bottom.set_xlabel("seconds since the begin of the load")
        for axes in (top, middle, bottom):
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")
            axes.grid(alpha=0.3)
        top.set_title(f"{self.settings.shape}, mix {self.settings.mix}, {self.settings.users} users")
        figure.savefig(path, dpi=110)
        pyplot.close(figure)

    def page(self, plot: bytes) -> str:
        """Returns the report as one HTML page with its plot."""
        facts = self.summary()
        limits = facts.pop("exceeded")
        rows = list(self.outcomes.rows())
        head = "".join(f"<th>{name}</th>" for name in (rows[0] if rows else {"name": ""}))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
        )
        listed = "".join(f"<li>{html.escape(one)}</li>" for one in (limits or ["Every limit is met."]))
        plain = {name: value for name, value in facts.items() if name not in ("requests", "causes")}
        described = "".join(f"<dt>{name}</dt><dd>{html.escape(str(value))}</dd>" for name, value in plain.items())
        causes = "".join(f"<li>{count} x {html.escape(name)}</li>" for name, count in facts["causes"].items())
        image = base64.b64encode(plot).decode()
        return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Maskdrop load test</title>
<style>body{{font:16px system-ui;max-width:64rem;margin:2rem auto}}td,th{{padding:.2rem .8rem;text-align:right}}
td:first-child,th:first-child{{text-align:left}}img{{width:100%}}dt{{float:left;width:10rem;font-weight:600}}</style>
<h1>Load test: {html.escape(self.settings.shape)}</h1><h2>Limits</h2><ul>{listed}</ul>
<img src="data:image/png;base64,{image}" alt="Requests, queues and instances over time">
<h2>Requests</h2><table><tr>{head}</tr>{body}</table><h2>Errors and refusals</h2><ul>{causes or "<li>none</li>"}</ul>
<h2>Run</h2><dl>{described}</dl></html>
"""

    def text(self) -> Iterator[str]:
        """Yields the result for a terminal."""
        rows = list(self.outcomes.rows())
        yield f"{'name':34} {'ok':>7} {'refused':>8} {'error':>6} {'p50 s':>8} {'p95 s':>8}"
        for row in rows:
            yield (
                f"{row['name']:34} {row[OK]:7} {row[REFUSED]:8} {row[ERROR]:6} {row['p50_s']:8.2f} {row['p95_s']:8.2f}"
            )
        for cause, count in self.outcomes.causes.most_common(5):
            yield f"  {count} x {cause}"
        yield from self.ledger.lines()
        if self.cost_usd is not None:
            yield f"instances cost {self.cost_usd:.4f} USD"
        yield from (exceeded(self.settings.limits, self.outcomes, self.ledger) or ["Every limit is met."])


def _csv(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    listed = list(rows)
    with path.open("w", newline="") as file:
        if listed:
            writer = csv.DictWriter(file, fieldnames=list(listed[0]))
            writer.writeheader()
            writer.writerows(listed)


def _number(value: float | None) -> float:
    return math.nan if value is None else value
