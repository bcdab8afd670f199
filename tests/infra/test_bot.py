"""The Telegram bot: off by default; its route, queue, rule and permissions in a stage with `[bot]`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infra.bot import environment
from infra.stages import BOT_EXECUTIONS, BotOptions, InvalidStage, load
from maskdrop.bot import API_URL, BotSettings
from maskdrop.webhook import RETRY_S
from tests.infra.conftest import Template, synthesize
from tests.infra.test_stack import statements, target

PARAMETER = "/maskdrop/dev/bot"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    folder = tmp_path_factory.mktemp("cdk.out")
    return synthesize(folder, "dev", bot={"parameter": PARAMETER, "chats": [7, -1001]})["Maskdrop"]


def bot_function(template: Template) -> dict[str, Any]:
    [function] = [one for one in template.functions if one["Handler"] == "lambdas.bot.handler"]
    return function


def test_a_stage_without_the_table_has_no_bot(tmp_path: Path) -> None:
    default = synthesize(tmp_path, "dev")["Maskdrop"]
    assert "lambdas.bot.handler" not in {one["Handler"] for one in default.functions}
    assert not [one for one in default.of("AWS::ApiGateway::Resource").values() if one["PathPart"] == "telegram"]
    assert "MASKDROP_BOT" not in json.dumps(default.functions)


def test_the_webhook_needs_no_key_and_other_paths_still_do(template: Template) -> None:
    [resource] = [
        name for name, one in template.of("AWS::ApiGateway::Resource").items() if one["PathPart"] == "telegram"
    ]
    methods = [one for one in template.of("AWS::ApiGateway::Method").values() if target(one["ResourceId"]) == resource]
    [method] = methods
    assert (method["HttpMethod"], method["AuthorizationType"]) == ("POST", "NONE")
    assert "BotFunction" in json.dumps(method["Integration"]["Uri"])


def test_the_events_of_jobs_of_chats_arrive_at_the_queue_of_the_bot(template: Template) -> None:
    [rule] = [
        one for one in template.of("AWS::Events::Rule").values() if "owner" in json.dumps(one.get("EventPattern", ""))
    ]
    assert rule["EventPattern"]["detail"] == {"data": {"owner": [{"prefix": "telegram:"}]}}
    [rule_target] = rule["Targets"]
    queue = template.of("AWS::SQS::Queue")[target(rule_target["Arn"])]
    assert target(rule_target["Arn"]).startswith("QueuesBot")
    assert queue["RedrivePolicy"]["maxReceiveCount"] == len(RETRY_S) + 1
    assert target(queue["RedrivePolicy"]["deadLetterTargetArn"]) == target(rule_target["DeadLetterConfig"]["Arn"])


def test_the_queue_starts_two_executions_that_process_one_message_each(template: Template) -> None:
    [mapping] = [
        one
        for one in template.of("AWS::Lambda::EventSourceMapping").values()
        if target(one["EventSourceArn"]).startswith("QueuesBot")
    ]
    assert (mapping["BatchSize"], mapping["ScalingConfig"]["MaximumConcurrency"]) == (1, BOT_EXECUTIONS)


def test_only_the_name_of_the_parameter_is_in_the_template_and_only_the_bot_reads_it(template: Template) -> None:
    variables = bot_function(template)["Environment"]["Variables"]
    assert variables["MASKDROP_BOT_PARAMETER"] == PARAMETER
    assert variables["MASKDROP_BOT_CHATS"] == "7 -1001"
    assert "MASKDROP_BOT_API_URL" not in variables  # the default
    [(role, statement)] = [
        (role, one) for role, one in statements(template) if "ssm:GetParameter" in json.dumps(one["Action"])
    ]
    assert role.startswith("BotRole")
    assert f":parameter{PARAMETER}" in json.dumps(statement["Resource"])


def test_the_environment_is_that_of_the_settings() -> None:
    options = BotOptions(parameter=PARAMETER, chats=(1,), messages_per_minute=3, api_url="https://telegram.corp")
    settings = BotSettings.from_env(environment(options, "https://sqs/bot"))
    assert settings == BotSettings(
        parameter=PARAMETER,
        queue_url="https://sqs/bot",
        api_url="https://telegram.corp",
        chats="1",
        messages_per_minute=3,
    )
    assert BotSettings.from_env(environment(BotOptions(parameter=PARAMETER), "q")).api_url == API_URL


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('parameter = "maskdrop"', "bot.parameter must be the name of an SSM parameter"),
        ('parameter = "/a"\napi_url = "http://telegram.corp"', "bot.api_url must be https://"),
        ('parameter = "/a"\ntoken = "123"', "bot.token is not an option"),
        ("", "bot.parameter"),
    ],
)
def test_an_invalid_table_is_named(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "shop.toml").write_text(f"[bot]\n{table}\n")
    with pytest.raises(InvalidStage, match=message):
        load("shop", tmp_path)
