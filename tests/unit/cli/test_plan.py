"""The command `plan`: options, the search for the fewest instances, costs, limits and the plot."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from cli.app import app
from cli.limits import limits
from cli.plan import arrival_times, duration, fewest, system_of, text_of
from cli.prices import INSTANCES, costs
from cli.terminal import UsageError
from infra import stages
from local.simulation import System, simulate
from maskdrop.flow import SERVICES_USD

PROD = stages.load("prod")


def invoke(*arguments: str, code: int = 0) -> Result:
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def plan(*arguments: str, code: int = 0) -> dict[str, Any]:
    result = invoke("plan", "--images-per-second", "20", "--json", *arguments, code=code)
    return dict(json.loads(result.stdout))


def test_a_plan_has_instances_times_costs_and_limits() -> None:
    record = plan("--images-per-day", "5000", "--arrivals", "burst", "--deadline", "30m")
    assert record["deadline_met"]
    times = list(record["completion_s"].values())
    assert times == sorted(times)
    assert times[2] <= 1800
    assert record["usd"]["instances"] == pytest.approx(record["instance_hours"] * INSTANCES["ml.g6.xlarge"], rel=0.01)
    assert sum(minute[-1] for minute in record["minutes"]) == 5000
    shares = [limit["peak"] / limit["allowed"] for limit in record["limits"]]
    assert shares == sorted(shares, reverse=True)


def test_a_missed_deadline_exits_with_1() -> None:
    record = plan(
        "--images-per-day", "20000", "--arrivals", "burst", "--deadline", "10m", "--max-instances", "1", code=1
    )
    assert not record["deadline_met"]


def test_a_deadline_shorter_than_a_start_is_met_by_no_number_of_instances() -> None:
    result = invoke("plan", "--images-per-day", "100", "--arrivals", "burst", "--deadline", "2m", code=1)
    assert "No number of instances" in result.stdout


def test_the_tables_name_the_rate_that_is_an_estimate() -> None:
    result = invoke("plan", "--images-per-day", "100", "--arrivals", "burst")
    assert "20 images/s (estimated" in result.stdout
    for title in ("Upload to record", "Over time", "Costs", "Limits"):
        assert title in result.stdout
    assert "meets the deadline of 1h" in result.stdout


def test_the_rate_is_read_from_the_report_of_make_bench(tmp_path: Path) -> None:
    report = tmp_path / "bench.json"
    report.write_text(json.dumps({"images_per_second": {"model_server": 23.6, "stack": 10.7}}))
    result = invoke("plan", "--images-per-day", "100", "--arrivals", "burst", "--bench", str(report), "--json")
    assert json.loads(result.stdout)["images_per_second"] == 23.6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--deadline", "soon"], "--deadline must be a number and a unit"),
        (["--bench", "missing.json"], "not a report of `make bench`"),
        (["--instance", "ml.p9.huge"], "--usd-per-hour"),
        (["--cold-start", "10m-5m"], "begin with the shorter time"),
        (["--plot", "missing/folder/plan.png"], "cannot be written"),
    ],
)
def test_an_invalid_option_is_named_with_what_is_accepted(arguments: list[str], message: str) -> None:
    result = invoke("plan", "--images-per-day", "10", "--arrivals", "burst", *arguments, code=2)
    assert message in result.stderr


def test_the_plot_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "plan.png"
    invoke("plan", "--images-per-day", "500", "--arrivals", "burst", "--plot", str(path))
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["even", "business", "burst"])
def test_arrivals_are_ascending_and_within_their_time(kind: Any) -> None:
    times = arrival_times(10_000, kind, seed=3, within_s=600)
    assert len(times) == 10_000
    assert np.all(np.diff(times) >= 0)
    assert 0 <= times[0] <= times[-1] <= (600 if kind == "burst" else 86_400)
    share = np.mean((times >= 9 * 3600) & (times < 18 * 3600))
    assert share == pytest.approx({"even": 9 / 24, "business": 0.9, "burst": 0}[kind], abs=0.02)


def test_the_search_finds_the_fewest_instances_that_meet_the_deadline() -> None:
    times = arrival_times(150_000, "burst", seed=1, within_s=600)

    def system(instances: int) -> System:
        return system_of(PROD, 20.0, instances)

    count = fewest(system, times, 2400, seed=1)
    late = [simulate(system(instances), times).percentile(99) for instances in (max(count - 1, 1), count)]
    assert late[0] > 2400 >= late[1]
    assert count > 2


def test_more_instances_than_those_of_the_stage_are_the_first_limit() -> None:
    system = system_of(PROD, 20.0, 2 * PROD.bulk_max_instances)
    found = limits(simulate(system, arrival_times(400_000, "burst", seed=1)), system, PROD)
    assert found[0].name.startswith("instances")
    assert found[0].share == 2
    assert all(one.share >= other.share for one, other in pairwise(found))
    assert len({limit.name for limit in found}) == len(found)


def test_the_services_around_full_bundles_cost_about_as_much_as_a_job_is_charged() -> None:
    """`cost_usd` of a job has a constant share for services; the prices of the plan add up to it within a fifth."""
    system = system_of(PROD, 20.0, 2)
    outcome = simulate(system, arrival_times(64_000, "burst", seed=1, within_s=600))
    lines = costs(outcome, instance_usd=1.0, result_mb=1.6, keep_days=30)
    services = [usd for name, usd in lines.items() if name != "instances" and not name.startswith("storage")]
    assert sum(services) / outcome.counts.images == pytest.approx(SERVICES_USD, rel=0.2)


def test_retries_cost_more() -> None:
    times = arrival_times(8_000, "burst", seed=1, within_s=60)

    def usd(failures: float) -> float:
        outcome = simulate(system_of(PROD, 20.0, 1, failures=failures), times)
        return sum(costs(outcome, instance_usd=1.0, result_mb=1.6, keep_days=1).values())

    assert usd(0.2) > usd(0.0)


def test_durations_are_read_and_printed() -> None:
    assert [duration("--deadline", text) for text in ("90s", "1.5m", "2h", "1d")] == [90, 90, 7200, 86_400]
    assert [text_of(seconds) for seconds in (42.0, 720.0, 12_600.0)] == ["42 s", "12 min", "3.5 h"]
    with pytest.raises(UsageError):
        duration("--deadline", "2 weeks")
