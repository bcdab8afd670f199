"""The alarms, their metrics and their rows in docs/operations.md."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.commands import load
from infra.alarms import METRICS
from lambdas.observe import ERROR_METRICS, JOB_METRICS
from tests.infra.account.assembly import Assembly
from tests.infra.conftest import Template, synthesize
from tests.infra.test_stack import ROOT, target


def alarms(template: Template) -> dict[str, dict[str, Any]]:
    """Returns the properties of the alarms of the application by name."""
    found = template.of("AWS::CloudWatch::Alarm").items()
    return {name.removeprefix("Alarms")[:-8]: one for name, one in found if name.startswith("Alarms")}


def metrics(alarm: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the metrics of an alarm, each with MetricName, Namespace and Dimensions."""
    if "Metrics" not in alarm:
        return [alarm]
    return [one["MetricStat"]["Metric"] for one in alarm["Metrics"] if "MetricStat" in one]


def dimensions(metric: dict[str, Any]) -> dict[str, Any]:
    return {one["Name"]: one["Value"] for one in metric["Dimensions"]}


def widget_metrics(template: Template) -> Iterator[list[Any]]:
    """Yields the metrics of the dashboard: [namespace, name, dimension, value, …, options]."""
    (board,) = template.of("AWS::CloudWatch::Dashboard").values()
    text = "".join(one if isinstance(one, str) else "token" for one in board["DashboardBody"]["Fn::Join"][1])
    for widget in json.loads(text)["widgets"]:
        yield from widget["properties"].get("metrics", [])


def test_every_alarm_of_the_application_notifies_the_operator(template: Template) -> None:
    emails = [one for one in template.of("AWS::SNS::Subscription").values() if one["Protocol"] == "email"]
    (topic,) = [target(one["TopicArn"]) for one in emails]
    for name, alarm in alarms(template).items():
        assert alarm["AlarmActions"] == [{"Ref": topic}], name


def test_every_log_that_an_alarm_names_exists(template: Template, on_gpu: dict[str, Template]) -> None:
    for name, alarm in {**alarms(template), **alarms(on_gpu["Maskdrop"])}.items():
        for function in re.findall(r"aws logs tail /maskdrop/dev/(\S+) --since", alarm["AlarmDescription"]):
            assert (ROOT / "lambdas" / f"{function}.py").exists(), name


RUNBOOKS = re.findall(
    r"^### (\w+)\n\n(.*?)(?=^#|\Z)", (ROOT / "docs" / "runbooks.md").read_text(), re.MULTILINE | re.DOTALL
)


def test_every_alarm_of_every_stage_has_a_runbook_and_every_runbook_an_alarm(variants: dict[str, Assembly]) -> None:
    linked: dict[str, str] = {}
    for assembly in variants.values():
        for one in assembly.of("AWS::CloudWatch::Alarm"):
            link = re.search(r"Runbook: docs/runbooks\.md#(\w+)$", one.properties["AlarmDescription"])
            assert link, one.logical_id
            linked[link[1]] = one.logical_id
    sections = [name.lower() for name, _ in RUNBOOKS]
    assert [linked[section] for section in sorted({*linked} - {*sections})] == []
    assert sorted({*sections} - {*linked}) == []
    assert len(sections) == len({*sections})


@pytest.mark.parametrize(("alarm", "body"), RUNBOOKS)
def test_every_runbook_has_a_meaning_a_command_a_correction_and_an_end(alarm: str, body: str) -> None:
    assert re.findall(r"^- \*\*(\w+)\*\*: \S", body, re.MULTILINE) == ["Meaning", "Look", "Correct", "Ends"]
    assert len(body.strip().splitlines()) == 4


def test_every_command_of_a_runbook_exists_with_its_options() -> None:
    page = (ROOT / "docs" / "runbooks.md").read_text()
    commands = {*re.findall(r"`(maskdrop [^`]+)`", page), *re.findall(r"^maskdrop [^#\n]+", page, re.MULTILINE)}
    assert len(commands) > 20
    for command in commands:
        name, *words = shlex.split(command)[1:]
        group: Any = load(name)
        if hasattr(group, "commands"):
            group = group.commands[words.pop(0)]
        options = {option for parameter in group.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, command


def test_every_metric_of_an_alarm_or_of_the_dashboard_is_written_by_a_function(
    template: Template, on_gpu: dict[str, Template]
) -> None:
    """A metric that no function and no filter of an endpoint's log writes never triggers its alarm."""
    filters = [
        one
        for stack in ("MaskdropBulk", "MaskdropInteractive")
        for one in on_gpu[stack].of("AWS::Logs::MetricFilter").values()
    ]
    by_filter = {one["MetricName"] for properties in filters for one in properties["MetricTransformations"]}
    read = set()
    for stack in (template, on_gpu["Maskdrop"]):
        read |= {one["MetricName"] for alarm in alarms(stack).values() for one in metrics(alarm)
                 if one["Namespace"] == "Maskdrop"}  # fmt: skip
        read |= {one[1] for one in widget_metrics(stack) if one[0] == "Maskdrop"}
    code = "\n".join(path.read_text() for path in (ROOT / "lambdas").rglob("*.py"))
    written = {*JOB_METRICS.values(), *ERROR_METRICS.values(), *re.findall(r'add_metric\("(\w+)"', code)}
    assert by_filter <= read
    assert read - by_filter == {*METRICS}
    assert read - by_filter <= written
    for functions in METRICS.values():
        assert all((ROOT / "lambdas" / f"{function}.py").exists() for function in functions)


def test_every_metric_of_ours_has_the_dimensions_service_and_stage(template: Template) -> None:
    """Without the stage, a job of `dev` would raise the alarm of `prod`."""
    ours = [one for alarm in alarms(template).values() for one in metrics(alarm) if one["Namespace"] == "Maskdrop"]
    assert len(ours) == 10
    for metric in ours:
        assert dimensions(metric).keys() == {"service", "stage"}
        assert dimensions(metric)["stage"] == "dev"
    on_board = [one[2:6] for one in widget_metrics(template) if one[0] == "Maskdrop"]
    assert on_board
    for service, name, stage, value in on_board:
        assert (service, stage, value) == ("service", "stage", "dev")
        assert name.startswith("maskdrop-")


def test_every_queue_has_an_alarm_on_the_age_of_its_messages(template: Template, on_gpu: dict[str, Template]) -> None:
    for one in (template, on_gpu["Maskdrop"]):
        watched = {
            target(dimensions(alarm)["QueueName"])
            for alarm in one.of("AWS::CloudWatch::Alarm").values()
            if alarm.get("MetricName") == "ApproximateAgeOfOldestMessage"
        }
        assert watched == one.of("AWS::SQS::Queue").keys()


def test_every_function_has_an_alarm_on_errors_and_those_of_the_api_on_throttles(template: Template) -> None:
    def watched(metric: str) -> set[str]:
        found = [one for one in alarms(template).values() if one.get("MetricName") == metric]
        return {target(dimensions(one)["FunctionName"]) for one in found}

    ours = {name for name, one in template.of("AWS::Lambda::Function").items() if one["Handler"].startswith("lambdas.")}
    assert watched("Errors") == ours
    assert {name[:-16] for name in watched("Throttles")} == {"Api", "Authorize"}
    assert {name[:-16] for name in watched("Invocations")} == {"Sweep"}


def test_every_table_has_an_alarm_on_throttles_of_its_own_and_of_its_indexes(template: Template) -> None:
    for name, table in template.of("AWS::DynamoDB::Table").items():
        watched = {
            (one["MetricName"], dimensions(one).get("GlobalSecondaryIndexName"))
            for alarm in alarms(template).values()
            for one in metrics(alarm)
            if dimensions(one).get("TableName") == {"Ref": name}
        }
        indexes = {("WriteThrottleEvents", one["IndexName"]) for one in table.get("GlobalSecondaryIndexes", [])}
        assert watched == {("ReadThrottleEvents", None), ("WriteThrottleEvents", None)} | indexes


def test_photos_that_wait_for_the_endpoint_raise_an_alarm_in_every_mode(
    template: Template, on_gpu: dict[str, Template]
) -> None:
    serverless, gpu = alarms(template), alarms(on_gpu["Maskdrop"])
    assert ("BundlesRefused" in serverless, "NoCapacity" in serverless) == (True, False)
    assert ("BundlesRefused" in gpu, "NoCapacity" in gpu) == (False, True)
    assert ("SubmissionsRefused" in serverless, "SubmissionsRefused" in gpu) == (False, True)
    assert dimensions(gpu["NoCapacity"]) == {"EndpointName": "maskdrop-dev-bulk-g6-xlarge"}


def test_a_stopped_sweep_raises_an_alarm_although_it_sends_no_metric(template: Template) -> None:
    stopped = alarms(template)["SweepStopped"]
    assert (stopped["ComparisonOperator"], stopped["TreatMissingData"]) == ("LessThanThreshold", "breaching")
    others = [one for name, one in alarms(template).items() if name != "SweepStopped"]
    assert {one["TreatMissingData"] for one in others} == {"notBreaching"}


@pytest.mark.parametrize(("mail", "warned"), [("", True), ("ops@example.com", False)])
def test_a_stage_without_mail_is_deployed_with_a_warning(tmp_path: Path, mail: str, *, warned: bool) -> None:
    synthesize(tmp_path, "dev", mail=mail)
    artifact = json.loads((tmp_path / "manifest.json").read_text())["artifacts"]["Maskdrop-dev"]
    metadata = json.loads((tmp_path / artifact["additionalMetadataFile"]).read_text())
    found = [entry for entries in metadata.values() for entry in entries if entry["type"] == "aws:cdk:warning"]
    assert any("notify nobody: set `mail`" in entry["data"] for entry in found) is warned


def test_the_idle_costs_count_every_metric_of_an_alarm(template: Template) -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    documented = re.findall(r"^\| (\d+) metrics of (\d+) alarms at 0.10 \| (\S+) \|", page, re.MULTILINE)
    every = list(template.of("AWS::CloudWatch::Alarm").values())
    number = sum(len(metrics(alarm)) for alarm in every)
    assert documented == [(str(number), str(len(every)), f"{number / 10:.2f}")]
