from __future__ import annotations

from dataclasses import fields

import pytest

from maskdrop.settings import InvalidSettings
from sagemaker_model.serving.worker_settings import HELP, WorkerSettings


def test_the_defaults_are_those_of_the_older_worker() -> None:
    settings, chosen = WorkerSettings.parse([], {})
    assert (settings.aws_source_bucket_name, settings.aws_target_bucket_name) == (
        "lala-auto-focus",
        "background-removal",
    )
    assert (settings.aws_dynamodb_table_name, settings.aws_queue_name) == ("NewImages", "BackgroundRemovalQueue")
    assert (settings.model_path, settings.aws_default_region_name) == ("MODNet/model_best.pth", "us-east-1")
    assert (settings.verbose, settings.delete_sqs_message, settings.break_loop) == (False, True, False)
    assert chosen == set()


@pytest.mark.parametrize("upper", [False, True])
def test_every_setting_is_a_flag_and_an_environment_variable_in_either_case(*, upper: bool) -> None:
    env = {"aws_queue_name": "photos", "verbose": "True", "aws_dynamodb_table_name": "none"}
    env = {name.upper(): value for name, value in env.items()} if upper else env
    settings, chosen = WorkerSettings.parse(["--aws_target_bucket_name", "mine", "--delete_sqs_message=off"], env)
    assert (settings.aws_queue_name, settings.verbose, settings.aws_dynamodb_table_name) == ("photos", True, None)
    assert (settings.aws_target_bucket_name, settings.delete_sqs_message) == ("mine", False)
    assert chosen == {*(name.lower() for name in env), "aws_target_bucket_name", "delete_sqs_message"}


def test_a_flag_takes_precedence_and_a_switch_needs_no_value() -> None:
    settings, _ = WorkerSettings.parse(["--break_loop", "--aws_queue_name", "flag"], {"AWS_QUEUE_NAME": "variable"})
    assert (settings.break_loop, settings.aws_queue_name) == (True, "flag")
    assert WorkerSettings.parse(["--once"], {})[0].break_loop


def test_the_region_is_that_of_the_aws_tools_unless_it_is_set() -> None:
    env = {"AWS_DEFAULT_REGION": "eu-west-1"}
    assert WorkerSettings.parse([], env)[0].aws_default_region_name == "eu-west-1"
    assert WorkerSettings.parse([], {**env, "AWS_REGION": "eu-west-2"})[0].aws_default_region_name == "eu-west-2"
    chosen, _ = WorkerSettings.parse(["--aws_default_region_name", "us-west-2"], env)
    assert chosen.aws_default_region_name == "us-west-2"


def test_the_error_names_every_invalid_setting() -> None:
    with pytest.raises(InvalidSettings, match=r"verbose must be .*visibility_s must be"):
        WorkerSettings.parse(["--verbose", "often", "--visibility_s", "0"], {})


def test_every_setting_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(HELP) == [field.name for field in fields(WorkerSettings)]
    with pytest.raises(SystemExit):
        WorkerSettings.parse(["--help"], {})
    shown = capsys.readouterr().out
    assert [name for name in HELP if f"--{name}" not in shown] == []
