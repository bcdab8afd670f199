"""The function `edit`, its queue, and what it may call, by the editor of the stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra import stages
from infra.stages import EDIT_EXECUTIONS, InvalidStage, Stage
from lambdas.edit import MARGIN_MS
from maskdrop.edit import EDITORS
from tests.infra.conftest import Template, synthesize
from tests.infra.test_stack import permissions, prefixes, target


def application(folder: Path, **options: Any) -> Template:
    return synthesize(folder, "dev", **options)["Maskdrop"]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return application(tmp_path_factory.mktemp("cdk.out"))


@pytest.fixture(scope="module")
def stability(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return application(tmp_path_factory.mktemp("cdk.out"), editor="stability", edit_usd_per_month=25.0)


def test_edit_takes_one_job_at_a_time_and_has_time_for_a_call(local: Template) -> None:
    [(queue, mapping)] = [
        (target(one["EventSourceArn"]), one)
        for one in local.of("AWS::Lambda::EventSourceMapping").values()
        if target(one["FunctionName"]).startswith("Edit")
    ]
    assert queue.startswith("QueuesEdits")
    assert (mapping["BatchSize"], mapping["ScalingConfig"]["MaximumConcurrency"]) == (1, EDIT_EXECUTIONS)
    function = local.of("AWS::Lambda::Function")[target(mapping["FunctionName"])]
    assert function["Timeout"] * 1000 > 2 * MARGIN_MS
    assert local.of("AWS::SQS::Queue")[queue]["VisibilityTimeout"] == 6 * function["Timeout"] + 60


def test_edit_reads_and_writes_only_the_files_of_edits(local: Template) -> None:
    allowed = permissions(local, "EditRole")
    assert prefixes(allowed["s3:GetObject"]) == prefixes(allowed["s3:PutObject"]) == {"edits"}
    for queue in ("QueuesEdits", "QueuesJobs"):
        assert queue in allowed["sqs:SendMessage"]
    assert "bedrock:InvokeModel" not in allowed


def test_every_function_that_moves_jobs_may_send_to_the_queue_of_edits(local: Template) -> None:
    for function in ("Api", "Ingest", "Record", "Sweep", "DeadLetters"):
        assert "QueuesEdits" in permissions(local, f"{function}Role")["sqs:SendMessage"]


def test_a_bedrock_editor_may_invoke_its_profile_and_the_model_in_each_region_of_the_profile(
    stability: Template,
) -> None:
    model = "stability.stable-image-inpaint-v1:0"
    [statement] = [
        one
        for policy in stability.of("AWS::IAM::Policy").values()
        for one in policy["PolicyDocument"]["Statement"]
        if one["Action"] == "bedrock:InvokeModel"
    ]
    text = json.dumps(statement["Resource"])
    assert text.count(f"::foundation-model/{model}") == 3
    assert all(f":bedrock:{region}::" in text for region in ("us-east-1", "us-east-2", "us-west-2"))
    assert f":inference-profile/us.{model}" in text
    variables = [one["Environment"]["Variables"] for one in stability.of("AWS::Lambda::Function").values()
                 if one["Handler"].startswith("lambdas.")]  # fmt: skip
    assert {one["MASKDROP_EDITOR"] for one in variables} == {"stability"}
    assert {one["MASKDROP_EDIT_USD_PER_MONTH"] for one in variables} == {"25.0"}


def test_a_stage_without_an_editor_has_no_queue_of_edits(tmp_path: Path) -> None:
    template = application(tmp_path, editor="off")
    text = json.dumps(template.body)
    assert "QueuesEdits" not in text
    assert "lambdas.edit" not in text
    assert "EditsQueueUrl" not in template.body["Outputs"]


@pytest.mark.parametrize(("editor", "endpoint"), [("local", False), ("stability", True)])
def test_the_network_has_an_endpoint_of_bedrock_only_for_an_editor_on_it(
    tmp_path: Path, editor: str, endpoint: bool
) -> None:
    network = synthesize(tmp_path, "dev", bulk="cpu", interactive="off", vpc=True, editor=editor)["MaskdropNetwork"]
    assert ("bedrock-runtime" in json.dumps(network.body)) == endpoint


def test_files_of_edits_expire_a_week_after_they_are_written(local: Template) -> None:
    rules = [
        rule
        for bucket in local.of("AWS::S3::Bucket").values()
        for rule in bucket["LifecycleConfiguration"]["Rules"]
        if rule.get("Prefix") == "edits/"
    ]
    assert [rule["ExpirationInDays"] for rule in rules] == [7]


def test_a_region_without_the_model_of_the_editor_is_refused_and_the_regions_are_named() -> None:
    stage = Stage(name="dev", editor="stability")
    with pytest.raises(InvalidStage, match="us-east-1, us-east-2, us-west-2 only; got the Region eu-central-1"):
        stages.check_region(stage, "eu-central-1")
    for region in ("", *EDITORS["stability"].regions):
        stages.check_region(stage, region)
    stages.check_region(Stage(name="dev"), "eu-central-1")


def test_a_reserved_concurrency_of_edit_is_accepted_only_with_an_editor() -> None:
    options: dict[str, Any] = {"name": "dev", "lambda_concurrency": 200, "reserved_concurrency": {"edit": 2}}
    assert Stage(**options).executions_by_queue["edit"] == EDIT_EXECUTIONS
    with pytest.raises(ValueError, match="not a function of this stage: edit"):
        Stage(**options, editor="off")
