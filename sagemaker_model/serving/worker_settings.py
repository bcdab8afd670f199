"""The settings of the command `worker`, with the flags, environment variables and defaults of the older SQS worker."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from maskdrop.settings import read

SWITCHES = {"on": "1", "yes": "1", "off": "0", "no": "0"}
"""Further values of a switch, besides 1, 0, true and false. All are accepted in upper and lower case."""

REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
"""Environment variables of the AWS tools that name the Region. The first one is set on ECS."""

HELP = {
    "aws_source_bucket_name": "bucket of messages that name a key alone",
    "aws_target_bucket_name": "bucket of the results",
    "aws_dynamodb_table_name": "table with a row for each image; none writes no rows",
    "model_path": "MODNet checkpoint for messages that name no engine; none, or no file there: the default engine",
    "aws_default_region_name": "Region of queue, buckets and table",
    "aws_queue_name": "name or URL of the queue",
    "verbose": "log each step",
    "delete_sqs_message": "delete messages whose images are done; off: dry run, the messages are redelivered",
    "break_loop": "end when the queue is empty, instead of waiting for messages until SIGTERM",
    "visibility_s": "seconds after which another worker gets the message of a worker that crashed",
}
"""What each setting is, for `worker --help`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """The settings of `worker`. Names and defaults are those of the older worker, but for `visibility_s`.

    aws_default_region_name: without a value, REGIONS take precedence over the default.
    visibility_s: visibility timeout of a message in seconds, which the worker extends while it processes the message.
    """

    aws_source_bucket_name: str = "lala-auto-focus"
    aws_target_bucket_name: str = "background-removal"
    aws_dynamodb_table_name: str | None = "NewImages"
    model_path: str | None = "MODNet/model_best.pth"
    aws_default_region_name: str = "us-east-1"
    aws_queue_name: str = "BackgroundRemovalQueue"
    verbose: bool = False
    delete_sqs_message: bool = True
    break_loop: bool = False
    visibility_s: int = 60

    @classmethod
    def parse(cls, arguments: Sequence[str], env: Mapping[str, str]) -> tuple[WorkerSettings, frozenset[str]]:
        """Returns the settings and the names of those that were set.

        A flag takes precedence over its environment variable, which may be in upper or lower case. Raises
        InvalidSettings that names every fault. Exits for --help and unknown flags.
        """
        names = [field.name for field in fields(cls)]
        flags = vars(_parser().parse_args(arguments))
        texts = {name: flags[name] or env.get(name) or env.get(name.upper(), "") for name in names}
        texts["aws_default_region_name"] = texts["aws_default_region_name"] or next(
            filter(None, map(env.get, REGIONS)), ""
        )
        chosen = {name: _switch(name, text) for name, text in texts.items() if text}
        return cls(**read(cls, chosen, check=_check)), frozenset(chosen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="worker",
        description="Processes the images that messages in SQS name, until SIGTERM. Every flag is an environment "
        "variable too.",
    )
    for field in fields(WorkerSettings):
        text = f"{HELP[field.name]} (default: {_shown(field.default)})"
        switch: dict[str, Any] = {"nargs": "?", "const": "1", "metavar": "on|off"} if _is_switch(field.name) else {}
        aliases = ["--once"] if field.name == "break_loop" else []
        parser.add_argument(f"--{field.name}", *aliases, dest=field.name, default="", help=text, **switch)
    return parser


def _shown(default: object) -> object:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else default


def _is_switch(name: str) -> bool:
    return name in ("verbose", "delete_sqs_message", "break_loop")


def _switch(name: str, text: str) -> str:
    return SWITCHES.get(text.lower(), text.lower()) if _is_switch(name) else text


def _check(name: str, value: Any) -> str:
    return "1 to 43200" if name == "visibility_s" and not 1 <= value <= 43_200 else ""
