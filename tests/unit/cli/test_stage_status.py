from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from cli import stage_status
from cli.app import app
from cli.checks.account import Account
from cli.stage_status import COUNTED, Status, lines, status_of
from infra.stages import load
from lambdas.adapters.jobs import JobsTable
from local.audit import Deployed
from maskdrop.errors import ErrorInfo
from maskdrop.flow import new_jobs
from maskdrop.job import State
from tests.fakes import NOW, World, a_source
from tests.unit.cli.aws import FakeAws, new_account

STACK = {"StackName": "Maskdrop-dev", "CreationTime": 0, "StackStatus": "CREATE_COMPLETE"}


@pytest.fixture
def world() -> World:
    return World()


def status(world: World, *alarms: str) -> Status:
    counts = {"ApproximateNumberOfMessages": "2", "ApproximateNumberOfMessagesNotVisible": "1"}
    endpoint = {
        "EndpointName": "e",
        "EndpointArn": "arn:aws:sagemaker:us-east-1:111122223333:endpoint/e",
        "EndpointConfigName": "c",
        "EndpointStatus": "InService",
        "ProductionVariants": [{"VariantName": "v", "CurrentInstanceCount": 3}],
        "CreationTime": 0,
        "LastModifiedTime": 0,
    }
    responses: dict[str, Any] = {
        **new_account(),
        "cloudformation.DescribeStacks": {"Stacks": [STACK]},
        "sqs.GetQueueAttributes": {"Attributes": counts},
        "sagemaker.DescribeEndpoint": endpoint,
        "sagemaker.ListEndpoints": {"Endpoints": []},
        "cloudwatch.DescribeAlarms": {
            "MetricAlarms": [{"AlarmName": name, "AlarmDescription": f"{name} fails."} for name in alarms]
        },
    }
    account = Account(load("dev"), "us-east-1", FakeAws(responses).client)
    jobs = cast(JobsTable, world.jobs)
    stores = Deployed(None, account.client("sqs"), jobs, "in", "out", {"Jobs": "https://sqs/jobs"}, timedelta(days=30))
    return status_of(account, stores, NOW)


def put(world: World, name: str, state: State, hours: float = 0) -> str:
    (job,) = new_jobs([a_source(f"inbox/{name}")], NOW)
    error = ErrorInfo("gave_up", "It went wrong.") if state == "failed" else None
    world.jobs.claim(replace(job, state=state, error=error, changed_at=NOW - timedelta(hours=hours)))
    return job.id


def test_the_status_counts_unfinished_jobs_and_those_of_the_last_day(world: World) -> None:
    put(world, "a.jpg", "queued", hours=100)
    put(world, "b.jpg", "submitted", hours=100)
    put(world, "c.jpg", "done", hours=23)
    put(world, "d.jpg", "done", hours=25)
    failed = put(world, "e.jpg", "failed", hours=1)
    put(world, "f.jpg", "failed", hours=25)
    found = status(world)
    assert found.jobs == {"queued": 1, "submitted": 1, "done": 1, "failed": 1}
    assert found.errors == [{"job": failed, "source": "inbox/e.jpg", "code": "gave_up", "message": "It went wrong."}]
    assert found.queues == {"Jobs": 3}
    assert set(found.endpoints.values()) == {"In service, 3 instances."}


def test_the_status_names_the_raised_alarms_of_the_stage_and_not_the_one_that_starts_an_instance(world: World) -> None:
    found = status(world, "Maskdrop-dev-AlarmsJobsAge-1", "Maskdrop-dev-AsleepWithWork-1", "Maskdrop-prod-x", "other")
    assert found.alarms == {"AlarmsJobsAge-1": "Maskdrop-dev-AlarmsJobsAge-1 fails."}
    assert "alarm AlarmsJobsAge-1: Maskdrop-dev-AlarmsJobsAge-1 fails." in lines(found)


def test_more_jobs_than_are_counted_are_shown_with_a_plus() -> None:
    found = Status({"queued": COUNTED + 1, "submitted": COUNTED, "done": 0, "failed": 0}, {"Jobs": 5}, {}, {}, [])
    assert lines(found) == [
        f"jobs: {COUNTED}+ queued, {COUNTED} submitted; in the last 24 hours 0 done, 0 failed",
        "messages: Jobs 5",
        "no alarm is raised",
    ]


@pytest.mark.parametrize(("alarms", "code"), [({}, 0), ({"JobsAge": "old"}, 1)])
def test_a_raised_alarm_exits_1(monkeypatch: pytest.MonkeyPatch, alarms: dict[str, str], code: int) -> None:
    found = Status(dict.fromkeys(("queued", "submitted", "done", "failed"), 0), {}, {}, alarms, [])
    monkeypatch.setattr("cli.audit.account_of", lambda _: None)
    monkeypatch.setattr("cli.audit.deployed_in", lambda _: None)
    monkeypatch.setattr(stage_status, "status_of", lambda *_: found)
    result = CliRunner().invoke(app, ["status", "--stage", "shop", "--json"])
    assert (result.exit_code, json.loads(result.stdout)["alarms"]) == (code, alarms)


def test_a_job_and_a_stage_exclude_each_other() -> None:
    result = CliRunner().invoke(app, ["status", "--stage", "shop", "a-job"])
    assert (result.exit_code, "exclude each other" in result.stderr) == (2, True)
