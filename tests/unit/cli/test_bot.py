"""`maskdrop bot`, against the stub of the Bot API and a fake of SSM."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import bot
from local.config import LocalConfig
from maskdrop.bot import COMMANDS, Credentials
from tests.bot_api import RunningBotApi, running_bot_api
from tests.unit.cli.aws import Error, FakeAws

TOKEN = "12345:" + "t0ken" * 7
OUTPUTS = {"BotUrl": "https://x", "BotParameter": "/maskdrop/bot", "ApiId": "abc", "ApiStage": "local"}
WEBHOOK = "http://127.0.0.1:4566/restapis/abc/local/_user_request_/telegram"


class Stage:
    """A local stage whose parameters are in `parameters`."""

    def __init__(self) -> None:
        self.parameters: dict[str, str] = {}
        self.outputs = OUTPUTS
        self.aws = FakeAws(
            {
                "ssm.PutParameter": self._put,
                "ssm.GetParameter": self._get,
                "ssm.DeleteParameter": self._delete,
            }
        )

    @contextmanager
    def connection(self, _stage: str | None) -> Iterator[tuple[dict[str, str], Callable[[str], Any]]]:
        yield self.outputs, self.aws.client

    def _put(self, request: dict[str, Any]) -> dict[str, Any]:
        assert request["Type"] == "SecureString"
        self.parameters[request["Name"]] = request["Value"]
        return {}

    def _get(self, request: dict[str, Any]) -> Any:
        if request["Name"] not in self.parameters:
            return Error("ParameterNotFound")
        return {"Parameter": {"Value": self.parameters[request["Name"]]}}

    def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        del self.parameters[request["Name"]]
        return {}


@pytest.fixture
def api() -> Iterator[RunningBotApi]:
    with running_bot_api() as running:
        yield running


@pytest.fixture
def stage(api: RunningBotApi, monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr(bot, "connection", stage.connection)
    monkeypatch.setattr(LocalConfig, "bot_api_url", api.url)
    monkeypatch.setattr(LocalConfig, "of_running_stack", lambda _env: LocalConfig())
    monkeypatch.setenv(bot.TOKEN, TOKEN)
    return stage


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(bot.app, arguments)
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def test_install_stores_the_credentials_and_registers_the_webhook(stage: Stage, api: RunningBotApi) -> None:
    output = run("install", "--drop-pending")
    assert "@maskdrop_local_bot is installed" in output
    credentials = Credentials.from_json(json.loads(stage.parameters["/maskdrop/bot"]))
    assert (credentials.token, credentials.username) == (TOKEN, "maskdrop_local_bot")
    assert len(credentials.secret) >= 32
    assert TOKEN not in output
    assert credentials.secret not in output
    state = api.control()
    assert state["webhook"] == {
        "url": WEBHOOK,
        "secret_token": credentials.secret,
        "allowed_updates": list(bot.ALLOWED_UPDATES),
        "drop_pending_updates": True,
        "max_connections": bot.CONNECTIONS,
    }
    assert state["calls"]["setMyCommands"] == 1
    run("install")
    assert Credentials.from_json(json.loads(stage.parameters["/maskdrop/bot"])).secret != credentials.secret


def test_status_prints_the_webhook_and_remove_deletes_it(stage: Stage, api: RunningBotApi) -> None:
    run("install")
    assert WEBHOOK in run("status")
    assert "removed" in run("remove")
    assert (stage.parameters, api.control()["webhook"]["url"]) == ({}, "")
    assert "not installed" in run("status", status=1)


def test_a_webhook_of_another_stage_is_reported(stage: Stage) -> None:
    run("install")
    stage.outputs = {**OUTPUTS, "ApiId": "another"}
    assert "The webhook at Telegram must be" in run("status", status=1)


def test_a_malformed_token_and_a_stage_without_a_bot_are_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bot.TOKEN, "my token")
    assert "A token has the form" in run("install", status=1)
    stage.outputs = {"ApiId": "abc", "ApiStage": "local"}
    assert "The stage has no bot" in run("install", status=1)
    assert stage.parameters == {}


def test_every_command_of_the_bot_has_a_description() -> None:
    assert set(bot.DESCRIPTIONS) == set(COMMANDS)
