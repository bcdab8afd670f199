"""The commands deploy, destroy, logs and costs, with a fake of the CDK and of AWS."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import costs, deploy, logs, profiles
from cli.app import app
from cli.checks.account import Line
from cli.logs import events
from infra.stages import STAGE_TAG
from local import stack
from tests.unit.cli.aws import Error, FakeAws
from tests.unit.maskdrop_client.api import Api


def invoke(*words: str, stdin: str | None = None) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words], input=stdin)


@pytest.fixture
def cdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CDK that appends its arguments to the returned file, and fails for the stage `prod`."""
    calls = tmp_path / "calls"
    program = f"""import sys
with open({str(calls)!r}, "a") as file:
    print(*sys.argv[1:], file=file)
sys.exit("--context=stage=prod" in sys.argv)"""

    def command(words: Sequence[str]) -> list[str]:
        return [sys.executable, "-c", program, *words]

    monkeypatch.setattr(deploy, "cdk_command", command)
    monkeypatch.setattr(deploy, "account_of", lambda _: None)
    monkeypatch.setattr(deploy, "examine", lambda _: [Line(name="credentials", level="ok", finding="They work.")])
    return calls


def test_deploy_runs_the_checks_and_then_the_cdk(cdk: Path) -> None:
    assert invoke("deploy", "--stage", "dev", "--bootstrap").exit_code == 0
    assert cdk.read_text().splitlines() == [
        "bootstrap --context=stage=dev",
        "deploy --all --context=stage=dev --require-approval=broadening",
    ]
    assert invoke("deploy", "--stage", "prod", "--yes").exit_code == 1
    assert cdk.read_text().splitlines()[-1].endswith("--context=stage=prod --require-approval=never")


def test_a_check_that_fails_the_deploy_stops_it_unless_checks_are_off(
    cdk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Line(name="quota", level="fails the deploy", finding="No GPU.", remedy="Request one.")
    monkeypatch.setattr(deploy, "examine", lambda _: [line])
    result = invoke("deploy")
    assert (result.exit_code, cdk.exists(), "Request one." in result.output) == (1, False, True)
    assert invoke("deploy", "--no-check").exit_code == 0


@pytest.mark.parametrize("stage", ["local", "nowhere"])
def test_a_stage_without_a_file_for_aws_is_refused(cdk: Path, stage: str) -> None:
    for command in ("deploy", "destroy"):
        assert invoke(command, "--stage", stage, "--yes").exit_code in (1, 2)
    assert not cdk.exists()


def test_destroy_asks_for_the_name_of_the_stage(cdk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert invoke("destroy", "--stage", "dev", stdin="dev\n").exit_code == 2  # no terminal
    assert not cdk.exists()
    assert invoke("destroy", "--stage", "dev", "--yes").exit_code == 0
    assert cdk.read_text() == "destroy --all --context=stage=dev --force\n"


def test_the_cdk_is_the_pinned_version_with_npx_of_this_environment() -> None:
    npx, yes, package, word = deploy.cdk_command(["synth"])
    assert Path(npx).name == "npx"
    assert (yes, word) == ("--yes", "synth")
    assert package.startswith("aws-cdk@")


# Logs

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
MS = round(AT.timestamp() * 1000)


def line(function: str, second: int, message: str) -> dict[str, Any]:
    event_id = {} if second == 3 else {"eventId": f"{function}-{second}"}  # the emulator's events have no id
    return {"logStreamName": "s", "timestamp": MS + second * 1000, "message": message, **event_id}


def aws(lines: dict[str, list[dict[str, Any]]]) -> FakeAws:
    """CloudWatch Logs with the lines of functions, one a page."""

    def page(request: dict[str, Any]) -> dict[str, Any]:
        found = lines[request["logGroupName"].rpartition("/")[2]]
        start = int(request.get("nextToken", 0))
        more = {"nextToken": str(start + 1)} if start + 1 < len(found) else {}
        return {"events": found[start : start + 1], **more}

    groups = [{"logGroupName": f"/maskdrop/dev/{name}"} for name in lines]
    return FakeAws({"logs.DescribeLogGroups": {"logGroups": groups}, "logs.FilterLogEvents": page})


def test_the_lines_of_all_functions_are_printed_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    record = json.dumps({"level": "ERROR", "message": "failed", "job_id": "j1", "code": "gave_up", "service": "x"})
    fake = aws({"api": [line("api", 1, "first"), line("api", 3, "third")], "ingest": [line("ingest", 2, record)]})
    monkeypatch.setattr(logs, "client_in", lambda _, service: fake.client(service))
    result = invoke("logs", "--stage", "dev", "--since", "2h", "--filter", "x")
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()
    assert [row.split()[1] for row in rows] == ["api", "ingest", "api"]
    assert "ERROR   failed  job_id=j1  code=gave_up" in rows[1]
    assert {request["filterPattern"] for name, request in fake.requests if name == "logs.FilterLogEvents"} == {"x"}
    one = invoke("logs", "ingest", "--stage", "dev", "--json")
    assert [json.loads(row)["function"] for row in one.stdout.splitlines()] == ["ingest"]


@pytest.mark.parametrize(("words", "status"), [(("nothing",), 2), (("--since", "1 week"), 2), (("--stage", "none"), 3)])
def test_logs_that_cannot_be_read_are_an_error(
    monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int
) -> None:
    fake = aws({"api": []})
    if "none" in words:
        fake.responses = {"logs.DescribeLogGroups": Error("AccessDeniedException")}
    monkeypatch.setattr(logs, "client_in", lambda _, service: fake.client(service))
    assert invoke("logs", "--stage", "dev", *words).exit_code == status


def test_the_lines_of_one_image_are_selected_by_its_trace_also_in_the_logs_of_the_endpoints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def groups(request: dict[str, Any]) -> dict[str, Any]:
        names = ["/maskdrop/dev/ingest", "/aws/sagemaker/Endpoints/maskdrop-dev-bulk-cpu"]
        found = [name for name in names if name.startswith(request["logGroupNamePrefix"])]
        return {"logGroups": [{"logGroupName": name} for name in found]}

    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    fake = aws({"ingest": [line("ingest", 1, "first")], "maskdrop-dev-bulk-cpu": [line("bulk-cpu", 2, "second")]})
    fake.responses = {**fake.responses, "logs.DescribeLogGroups": groups}
    monkeypatch.setattr(logs, "client_in", lambda _, service: fake.client(service))
    rows = invoke("logs", "--stage", "dev", "--trace", trace).stdout.splitlines()
    assert [row.split()[1] for row in rows] == ["ingest", "bulk-cpu"]
    patterns = {request["filterPattern"] for name, request in fake.requests if name == "logs.FilterLogEvents"}
    assert patterns == {f'"{trace}"'}
    for words in (("--trace", "a trace"), ("--trace", trace, "--filter", "x")):
        assert invoke("logs", "--stage", "dev", *words).exit_code == 2


def test_following_yields_each_line_once() -> None:
    found = [line("api", 1, "first")]
    fake, waits = aws({"api": found}), list[float]()

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt
        found.append(line("api", 1 + len(waits), "more"))

    following = events(fake.client("logs"), {"api": "/maskdrop/dev/api"}, AT, "", follow=True, sleep=sleep)
    assert [next(following).at.second for _ in range(3)] == [1, 2, 3]
    with pytest.raises(KeyboardInterrupt):
        next(following)


def test_logs_without_a_stage_need_the_local_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "find", lambda _: None)
    assert invoke("logs").exit_code == 3


# Costs


def test_costs_are_the_usage_of_the_month_and_on_request_those_of_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    monkeypatch.setattr(profiles, "Maskdrop", lambda *_, **__: api.client())
    monkeypatch.setenv("MASKDROP_API_URL", "https://api.test/prod")
    usage = json.loads(invoke("costs", "--month", "2026-11", "--json").stdout.splitlines()[-1])
    assert usage == {
        "month": "2026-11",
        "owner": "shop",
        "images": 0,
        "refused": 0,
        "generated": 0,
        "generated_usd": 0.0,
    }

    def page(request: dict[str, Any]) -> dict[str, Any]:
        assert request["TimePeriod"] == {"Start": "2026-12-01", "End": "2027-01-01"}
        assert request["Filter"] == {"Tags": {"Key": STAGE_TAG, "Values": ["dev"]}}
        last = "NextPageToken" in request
        cost = {"UnblendedCost": {"Amount": "1.5" if last else "0.25", "Unit": "USD"}}
        groups = [{"Keys": ["Amazon S3" if last else "AWS Lambda"], "Metrics": cost}]
        return {"ResultsByTime": [{"Groups": groups}], **({} if last else {"NextPageToken": "2"})}

    fake = FakeAws({"ce.GetCostAndUsage": page})
    monkeypatch.setattr(costs, "client_in", lambda _, service: fake.client(service))
    result = invoke("costs", "--month", "2026-12", "--aws", "dev")
    assert result.exit_code == 0, result.output
    assert "$0.01 a request" in result.stderr
    assert "1.7500 USD  stage dev" in result.stdout
    fake.responses = {"ce.GetCostAndUsage": Error("AccessDeniedException")}
    assert invoke("costs", "--aws", "dev").exit_code == 3
    assert invoke("costs", "--month", "May").exit_code == 2
