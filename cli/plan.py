"""Plan a stage: how many instances a number of images needs, how long they take, what they cost, what limits them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from rich.table import Table

from cli.limits import Limit, limits
from cli.prices import INSTANCES, costs
from cli.terminal import FAILED, UsageError, console, print_errors
from infra import stages
from lambdas.adapters.jobs import SHARDS
from local.simulation import Minute, Outcome, System, Times, bulk_target, simulate

DAY_S = 86_400.0

INSTANCES_MAX = 500
"""Largest number of instances that the search tries."""

ROWS = 12
"""Rows of the table over time."""

BUSINESS_HOURS = 9.0, 18.0
BUSINESS_SHARE = 0.9
"""Business hours, and the share of a day's images that arrive within them."""

RESULT_MB = 1.6
"""Size of a result: a PNG cut-out of a photo of 2 MB."""

Arrivals = Literal["even", "business", "burst"]


def plan(
    images_per_day: Annotated[int, typer.Option(min=1, max=100_000_000, help="Images of a day.")],
    deadline: Annotated[
        str, typer.Option(help="Time within which 99 % of the images are done: a number and s, m, h or d.")
    ] = "1h",
    arrivals: Annotated[
        Arrivals, typer.Option(help="even: over the day. business: 90 % from 9 to 18 h. burst: within --within.")
    ] = "even",
    within: Annotated[str, typer.Option(help="Duration of a burst, which begins with the day.")] = "1h",
    stage: Annotated[str, typer.Option(help="Stage whose options apply: the name of a file in stages/.")] = "prod",
    instance: Annotated[
        str, typer.Option(help=f"Instance type: {', '.join(INSTANCES)}, or another one with --usd-per-hour.")
    ] = "ml.g6.xlarge",
    usd_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of an instance for an hour.", show_default="list price")
    ] = None,
    images_per_second: Annotated[
        float | None,
        typer.Option(min=0.001, help="Measured images a second of one instance.", show_default="an estimate"),
    ] = None,
    bench: Annotated[
        Path | None, typer.Option(help="reports/bench.json of `make bench`: the measured images a second.")
    ] = None,
    max_instances: Annotated[
        int | None,
        typer.Option(min=1, max=INSTANCES_MAX, help="Instances.", show_default="the fewest that meet the deadline"),
    ] = None,
    failures: Annotated[float, typer.Option(min=0, max=0.9, help="Share of the images that an attempt fails.")] = 0.0,
    cold_start: Annotated[str, typer.Option(help="Shortest and longest start of an instance.")] = "5m-10m",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulation.")] = 1,
    plot: Annotated[Path | None, typer.Option(help="Also draw instances, backlog and completion: a PNG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate a day of a stage and print its instances, times, costs and limits. Exits 1 if the deadline is missed."""
    with print_errors():
        deadline_s = duration("--deadline", deadline)
        rate, source = _rate(images_per_second, bench, instance)
        base = stages.load(stage)
        usd = usd_per_hour if usd_per_hour is not None else _price(instance)
        times = arrival_times(images_per_day, arrivals, seed=seed, within_s=duration("--within", within))
        start_s = _range("--cold-start", cold_start)

        def system(instances: int) -> System:
            return system_of(base, rate, instances, start_s=start_s, failures=failures, instance=instance)

        with console.status("Simulating"):
            count = max_instances or fewest(system, times, deadline_s, seed=seed)
            outcome = simulate(system(count), times, seed=seed)
        met = outcome.percentile(99) <= deadline_s
        found = limits(outcome, system(count), base)
        lines = costs(outcome, instance_usd=usd, result_mb=RESULT_MB, keep_days=base.keep_results_days)
        if plot:
            draw(outcome, plot, title=f"{images_per_day:,} images, {count} x {instance}")
    if as_json:
        record = _record(outcome, found, lines, instances=count, rate=rate, deadline_met=met)
        console.print(json.dumps(record), markup=False, soft_wrap=True)
    else:
        console.print(
            f"{images_per_day:,} images ({arrivals}), {count} x {instance} at {rate:g} images/s ({source}), "
            f"stage {stage}, seed {seed}.",
            markup=False,
            soft_wrap=True,
        )
        for table in (_completion(outcome), _over_time(outcome.minutes), _costs(lines, outcome), _limits(found)):
            console.print(table)
        verdict = "meets" if met else "misses"
        console.print(f"99 % in {text_of(outcome.percentile(99))}: {verdict} the deadline of {deadline}.")
        if not met and max_instances is None:
            console.print(
                f"No number of instances up to {INSTANCES_MAX} meets it: it is shorter than the start of an instance "
                "(--cold-start), or a limit above holds up the images.",
                soft_wrap=True,
            )
    if not met:
        raise typer.Exit(FAILED)


def system_of(
    stage: stages.Stage,
    images_per_second: float,
    instances: int,
    *,
    start_s: tuple[float, float] = (300.0, 600.0),
    failures: float = 0.0,
    instance: str = "ml.g6.xlarge",
) -> System:
    """Returns the system of a stage with another number of instances, which process `images_per_second` each."""
    larger = stage.model_copy(update={"bulk": _mode(instance), "bulk_max_instances": instances})
    return System(
        images_per_second=images_per_second,
        target=bulk_target(instances),
        start_s=start_s,
        failures=failures,
        bundle_max=larger.bundle_max,
        backlog_max=larger.backlog_max,
        executions=larger.source_concurrency,
        window_s=float(larger.batching_window_s),
        shards=SHARDS,
    )


def arrival_times(images: int, kind: Arrivals, *, seed: int, within_s: float = 3600.0) -> Times:
    """Returns the times of a day's uploads in seconds, ascending: random, with the density that `kind` names."""
    rng = np.random.default_rng([seed, 0])
    if kind == "burst":
        times = rng.uniform(0, within_s, images)
    elif kind == "even":
        times = rng.uniform(0, DAY_S, images)
    else:
        start, end = (hour * 3600 for hour in BUSINESS_HOURS)
        inside = rng.binomial(images, BUSINESS_SHARE)
        night = rng.uniform(0, DAY_S - (end - start), images - inside)
        night[night > start] += end - start
        times = np.concatenate([rng.uniform(start, end, inside), night])
    return np.sort(times)


def fewest(system: Callable[[int], System], times: Times, deadline_s: float, *, seed: int) -> int:
    """Returns the fewest instances with which 99 % of the images are done in time, by bisection; at most INSTANCES_MAX.

    system: returns the `System` for a number of instances.
    """

    def meets(count: int) -> bool:
        outcome = simulate(system(count), times, seed=seed, deadline_s=deadline_s)
        return not outcome.late and outcome.percentile(99) <= deadline_s

    # At least the work of all images within their time and the deadline.
    work_s = len(times) / system(1).images_per_second
    low = math.floor(work_s / (float(times[-1] - times[0]) + deadline_s))
    high = low + 1
    while high < INSTANCES_MAX and not meets(high):
        low, high = high, min(high * 2, INSTANCES_MAX)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle, high)
    return high


def duration(option: str, text: str) -> float:
    """Returns the seconds of a text such as 90s, 30m, 2h or 1d. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not match:
        raise UsageError(f"{option} must be a number and a unit, such as 30m or 2h; got {text}.")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


def text_of(seconds: float) -> str:
    """A time for people: 42 s, 12 min, 3.5 h."""
    if math.isnan(seconds):
        return "-"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def draw(outcome: Outcome, path: Path, *, title: str = "") -> None:
    """Draws instances, backlog and completion times. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("--plot needs matplotlib: install the extra `train`.") from error
    hours = [minute.at_s / 3600 for minute in outcome.minutes]
    figure = Figure(figsize=(9, 7), layout="constrained")
    instances, backlog, completion = figure.subplots(3)
    instances.step(hours, [minute.desired for minute in outcome.minutes], where="post", color="0.7", label="wanted")
    instances.step(hours, [minute.ready for minute in outcome.minutes], where="post", color="C0", label="ready")
    instances.set(ylabel="instances", ylim=(0, None))
    instances.set_title(title, loc="left")
    backlog.stackplot(
        hours,
        [minute.submitted for minute in outcome.minutes],
        [minute.waiting for minute in outcome.minutes],
        labels=["at the endpoint", "in SQS"],
        colors=["C0", "C1"],
    )
    backlog.set(ylabel="waiting images", xlabel="hours", ylim=(0, None))
    backlog.yaxis.set_major_formatter("{x:,.0f}")
    completion_s = np.sort(outcome.completion_s)
    shares = np.linspace(0, 100, len(completion_s))
    step = max(len(completion_s) // 2000, 1)
    completion.plot(completion_s[::step] / 60, shares[::step], color="C0")
    completion.set(xlabel="minutes from upload to record", ylabel="% of the images", ylim=(0, 100), xlim=(0, None))
    for axes in (instances, backlog, completion):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.3)
    for axes in (instances, backlog):
        axes.set_xlim(0, hours[-1])
        axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    instances.yaxis.get_major_locator().set_params(integer=True)
    try:
        figure.savefig(path, dpi=110)
    except (OSError, ValueError) as error:
        raise UsageError(f"--plot: {path} cannot be written: {error}") from error


def _rate(measured: float | None, bench: Path | None, instance: str) -> tuple[float, str]:
    """Returns the images a second of an instance, and where the figure is from."""
    if measured is not None:
        return measured, "measured"
    if bench is not None:
        try:
            return float(json.loads(bench.read_text())["images_per_second"]["model_server"]), f"of {bench.name}"
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"--bench: {bench} is not a report of `make bench`; run it, or use --images-per-second."
            ) from error
    return float(stages.IMAGES_PER_SECOND[_mode(instance)]), "estimated: measure it and use --images-per-second"


def _mode(instance: str) -> stages.Bulk:
    """Returns the mode of the endpoint `bulk` for an instance type."""
    return "cpu" if instance.startswith(("ml.c", "ml.m", "ml.r", "ml.t")) else "gpu"


def _price(instance: str) -> float:
    if instance not in INSTANCES:
        raise UsageError(f"The price of {instance} is not known: use --usd-per-hour, or one of {', '.join(INSTANCES)}.")
    return INSTANCES[instance]


def _range(option: str, text: str) -> tuple[float, float]:
    shortest, _, longest = text.partition("-")
    first, last = duration(option, shortest), duration(option, longest or shortest)
    if first > last:
        raise UsageError(f"{option} must begin with the shorter time, such as 5m-10m; got {text}.")
    return first, last


def _completion(outcome: Outcome) -> Table:
    table = Table("p50", "p95", "p99", "last image", "failed", "instance hours", "busy", title="Upload to record")
    counts = outcome.counts
    table.add_row(
        *(text_of(outcome.percentile(share)) for share in (50, 95, 99, 100)),
        f"{counts.failed:,}",
        f"{counts.instance_s / 3600:.1f}",
        f"{counts.busy_s / max(counts.instance_s, 1):.0%}",
    )
    return table


def _over_time(minutes: list[Minute]) -> Table:
    table = Table("hours", "instances", "waiting in SQS", "at the endpoint", "done", title="Over time")
    done = np.cumsum([minute.finished for minute in minutes])
    for index in sorted({round(at) for at in np.linspace(0, len(minutes) - 1, ROWS)}):
        minute = minutes[index]
        row = (minute.ready, minute.waiting, minute.submitted, int(done[index]))
        table.add_row(f"{minute.at_s / 3600:.1f}", *(f"{value:,}" for value in row))
    return table


def _costs(lines: dict[str, float], outcome: Outcome) -> Table:
    table = Table("cost", "USD", "USD per 1,000 images", title="Costs")
    for name, usd in [*lines.items(), ("sum", sum(lines.values()))]:
        table.add_row(name, f"{usd:,.2f}", f"{usd / max(outcome.counts.images, 1) * 1000:.4f}")
    return table


def _limits(found: list[Limit]) -> Table:
    table = Table("limit", "peak", "allowed", "share", "lifted by", title="Limits, the first one that is met on top")
    for limit in found:
        table.add_row(limit.name, f"{limit.peak:,.4g}", f"{limit.allowed:,.6g}", f"{limit.share:.1%}", limit.lifted_by)
    return table


def _record(
    outcome: Outcome, found: list[Limit], lines: dict[str, float], *, instances: int, rate: float, deadline_met: bool
) -> dict[str, Any]:
    return {
        "instances": instances,
        "images_per_second": rate,
        "deadline_met": deadline_met,
        "completion_s": {f"p{share}": round(outcome.percentile(share), 1) for share in (50, 95, 99, 100)},
        "failed": outcome.counts.failed,
        "instance_hours": round(outcome.counts.instance_s / 3600, 2),
        "usd": {name: round(usd, 4) for name, usd in lines.items()},
        "limits": [
            {"name": limit.name, "peak": round(limit.peak, 3), "allowed": round(limit.allowed, 3)} for limit in found
        ],
        "minutes": [
            [minute.at_s, minute.ready, minute.waiting, minute.submitted, minute.finished] for minute in outcome.minutes
        ],
    }
