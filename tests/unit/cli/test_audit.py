from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import audit as command
from cli.app import app
from cli.audit import SHOWN, deployed_in
from cli.checks.account import Account
from cli.terminal import UsageError
from infra.stages import load
from local.audit import Audit, Deployed
from maskdrop.reconcile import Finding
from tests.unit.cli.aws import FakeAws, new_account

QUEUE = {"ResourceType": "AWS::SQS::Queue", "LastUpdatedTimestamp": 0, "ResourceStatus": "CREATE_COMPLETE"}


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """The findings of the audit of the stage shop; its stores are not read."""
    found: list[Finding] = []
    monkeypatch.setattr(command, "account_of", lambda _: Account(load("dev"), "us-east-1", lambda _: None))
    monkeypatch.setattr(command, "deployed_in", lambda _: None)
    monkeypatch.setattr(command, "audit_deployed", lambda *_, **__: Audit(list(found), 3, 2, 1))
    return found


def run(*words: str) -> Result:
    return CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words])


def test_an_audit_without_findings_exits_0(findings: list[Finding]) -> None:
    result = run("audit", "--stage", "shop")
    assert (result.exit_code, result.stdout) == (0, "3 photos, 2 records and 1 results compared: no findings.\n")


def test_an_audit_prints_each_kind_with_its_repair_and_exits_1(findings: list[Finding]) -> None:
    findings += [Finding("lost", f"{number}", "inbox/[a].jpg has no record.") for number in range(SHOWN + 2)]
    result = run("audit", "--stage", "shop")
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert lines[0] == f"lost ({SHOWN + 2}): an accepted source has no record."
    assert lines[1] == "  0: inbox/[a].jpg has no record."
    assert lines[-3:-1] == ["  2 more: --json prints all.", "  repair: maskdrop backfill inbox/ --stage shop"]


def test_an_audit_prints_json_and_leaves_out_ignored_kinds(findings: list[Finding]) -> None:
    findings += [Finding("lost", "1", "gone"), Finding("result_missing", "2", "gone")]
    result = run("audit", "--json", "--ignore", "lost")
    assert result.exit_code == 1
    kept = [{"kind": "result_missing", "subject": "2", "message": "gone"}]
    assert json.loads(result.stdout) == {"findings": kept, "photos": 3, "records": 2, "results": 1}
    assert run("audit", "--ignore", "lost", "--ignore", "result_missing").exit_code == 0
    assert run("audit", "--ignore", "gone").exit_code == 2


def test_a_backfill_outside_the_drop_folder_is_refused(findings: list[Finding]) -> None:
    result = run("backfill", "uploads/")
    assert (result.exit_code, "must begin with inbox/" in result.stderr) == (2, True)


def test_a_stage_that_is_not_deployed_is_named() -> None:
    account = Account(load("dev"), "us-east-1", FakeAws(new_account()).client)
    with pytest.raises(UsageError, match="The stage dev is not deployed in us-east-1"):
        deployed_in(account)


def test_the_stores_of_a_stage_are_read_from_its_stack() -> None:
    outputs = {"JobsTable": "table", "InboxBucket": "in", "ResultsBucket": "out"}
    stack = {"StackName": "Maskdrop-dev", "CreationTime": 0, "StackStatus": "CREATE_COMPLETE"}
    stack["Outputs"] = [{"OutputKey": name, "OutputValue": value} for name, value in outputs.items()]
    queues = [
        {**QUEUE, "LogicalResourceId": f"Queues{name}0123ABCD", "PhysicalResourceId": f"https://sqs/{name}"}
        for name in ("Dead", "Jobs")
    ]
    responses: dict[str, Any] = {
        **new_account(),
        "cloudformation.DescribeStacks": {"Stacks": [stack]},
        "cloudformation.ListStackResources": {"StackResourceSummaries": queues},
    }
    found = deployed_in(Account(load("dev"), "us-east-1", FakeAws(responses).client))
    assert isinstance(found, Deployed)
    assert (found.inbox, found.results) == ("in", "out")
    assert found.queues == {"Dead": "https://sqs/Dead", "Jobs": "https://sqs/Jobs"}
