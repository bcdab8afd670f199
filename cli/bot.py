"""Install, check and remove the Telegram bot of a stage."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from botocore.exceptions import ClientError

from cli.terminal import console, print_errors
from lambdas.adapters.fetch import PublicWeb
from lambdas.adapters.telegram import Parameter, Telegram
from local.config import LocalConfig, LocalError
from local.keys import connection
from maskdrop.bot import API_URL, COMMANDS, Credentials
from maskdrop.ssrf import Policy

TOKEN = "TELEGRAM_BOT_TOKEN"  # noqa: S105  name of an environment variable
TOKEN_PATTERN = re.compile(r"\d+:[\w-]{20,}")

ALLOWED_UPDATES = ("message", "edited_message")
"""Kinds of updates that the bot processes."""

CONNECTIONS = 4
"""Webhook requests that Telegram sends at once: each takes one Lambda execution."""

DESCRIPTIONS = {
    "start": "what the bot does",
    "help": "captions and limits",
    "presets": "names of the presets",
    "sticker": "how to make a sticker",
}
"""Descriptions of the commands in the menu of the chat."""

app = typer.Typer(no_args_is_help=True, help=__doc__)

Stage = Annotated[str | None, typer.Option(help="Stage in your AWS account (default: the local stack).")]
ApiUrl = Annotated[
    str | None,
    typer.Option("--api-url", help="URL of the Bot API server, as in \\[bot] of the stage.", show_default=API_URL),
]


@dataclass(frozen=True, slots=True)
class Deployment:
    """The bot of a stage. webhook: URL that Telegram calls. parameter: name of the SSM parameter."""

    webhook: str
    parameter: str
    ssm: Any
    telegram: Callable[[str], Telegram]

    def credentials(self) -> Credentials:
        """Raises LocalError before `bot install`."""
        try:
            return Parameter(self.ssm, self.parameter).read_now()
        except ClientError as error:
            if error.response["Error"]["Code"] != "ParameterNotFound":
                raise
            raise LocalError("The bot is not installed. Run `maskdrop bot install`.") from error


@app.command()
def install(
    stage: Stage = None,
    drop_pending: Annotated[
        bool, typer.Option("--drop-pending", help="Discard the messages that wait for the bot at Telegram.")
    ] = False,
    api_url: ApiUrl = None,
) -> None:
    """Store the token and a new secret, and register the webhook. Reads the token from TELEGRAM_BOT_TOKEN or a
    prompt; @BotFather on Telegram creates it."""
    with print_errors(), _deployment(stage, api_url) as target:
        token = os.environ.get(TOKEN) or typer.prompt("Token of the bot", hide_input=True)
        if not TOKEN_PATTERN.fullmatch(token):
            raise LocalError("A token has the form 123456789:ABC…, as @BotFather shows it.")
        telegram = target.telegram(token)
        username = telegram.call("getMe", {})["username"]
        credentials = Credentials(token, secrets.token_urlsafe(32), username)
        target.ssm.put_parameter(
            Name=target.parameter,
            Description="Credentials of the Telegram bot of Maskdrop",
            Value=json.dumps(credentials.to_json()),
            Type="SecureString",
            Overwrite=True,
        )
        telegram.call(
            "setWebhook",
            {
                "url": target.webhook,
                "secret_token": credentials.secret,
                "allowed_updates": ALLOWED_UPDATES,
                "drop_pending_updates": drop_pending,
                "max_connections": CONNECTIONS,
            },
        )
        commands = [{"command": name, "description": DESCRIPTIONS[name]} for name in COMMANDS]
        telegram.call("setMyCommands", {"commands": commands})
        _check(telegram.call("getWebhookInfo", {}), target)
    console.print(f"@{username} is installed. Send it a photo: https://t.me/{username}", markup=False, soft_wrap=True)


@app.command()
def status(stage: Stage = None, api_url: ApiUrl = None) -> None:
    """Print the webhook as Telegram knows it. Exits 1 if it is not that of the stage, or its last call failed."""
    with print_errors(), _deployment(stage, api_url) as target:
        credentials = target.credentials()
        info = target.telegram(credentials.token).call("getWebhookInfo", {})
        console.print(f"bot       @{credentials.username}", markup=False)
        console.print(f"webhook   {info.get('url') or 'none'}", markup=False, soft_wrap=True)
        console.print(f"pending   {info.get('pending_update_count', 0)}", markup=False)
        if info.get("last_error_message"):
            console.print(f"error     {info['last_error_message']}", markup=False, soft_wrap=True)
        _check(info, target)


@app.command()
def remove(stage: Stage = None, api_url: ApiUrl = None) -> None:
    """Delete the webhook and the stored credentials."""
    with print_errors(), _deployment(stage, api_url) as target:
        target.telegram(target.credentials().token).call("deleteWebhook", {})
        target.ssm.delete_parameter(Name=target.parameter)
    console.print("The bot is removed.")


def _check(info: dict[str, Any], target: Deployment) -> None:
    """Raises LocalError where the webhook at Telegram is not that of the stage, or its last call failed."""
    if info.get("url") != target.webhook:
        raise LocalError(f"The webhook at Telegram must be {target.webhook}. Run `maskdrop bot install`.")
    if info.get("last_error_message") and info.get("pending_update_count"):
        raise LocalError(f"Telegram could not call the webhook: {info['last_error_message']}. Check the log of `bot`.")


@contextmanager
def _deployment(stage: str | None, api_url: str | None) -> Iterator[Deployment]:
    """Yields the bot of a stage. Raises LocalError for a stage without a bot, and as `connection` does."""
    with connection(stage) as (outputs, make_client):
        if "BotUrl" not in outputs:
            raise LocalError("The stage has no bot. Add [bot] to its file (docs/bot.md) and deploy it.")
        webhook, url, policy = outputs["BotUrl"], api_url or API_URL, Policy()
        if stage is None:
            config = LocalConfig.of_running_stack(os.environ)
            webhook = f"{config.api_url(outputs['ApiId'], outputs['ApiStage'])}/telegram"
            url, policy = config.bot_api_url, Policy(trusted=frozenset({"localhost"}))
        web = PublicWeb(policy)
        ssm = make_client("ssm")
        yield Deployment(webhook, outputs["BotParameter"], ssm, lambda token: Telegram(web, url, lambda: token))
