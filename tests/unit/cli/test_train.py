"""The commands `maskdrop train` and `tune`; tests of the training loop are in tests/unit/sagemaker_model/training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.validate import validate_parameters
from typer.testing import CliRunner, Result

from cli.app import app
from sagemaker_model.training.settings import descriptions

ON_SAGEMAKER = (
    "--data=s3://mine/people/",
    "--out=s3://mine/runs/",
    "--image=1.dkr.ecr.eu-west-1.amazonaws.com/maskdrop-dev:1",
    "--role=arn:aws:iam::123456789012:role/training",
)


class FakeSdk:
    """Replaces Python of the environment with the SageMaker SDK, and records the requests."""

    def __init__(self, folder: Path) -> None:
        self.python, self.file = folder / "python", folder / "requests"
        self.python.write_text(
            f"#!{sys.executable}\nimport sys\n"
            f"open({str(self.file)!r}, 'a').write(sys.stdin.read() + '\\n')\nprint('job-1')\n"
        )
        self.python.chmod(0o755)

    def request(self, operation: str) -> dict[str, Any]:
        """Returns the only request, which botocore's model of the operation accepts."""
        request = json.loads(self.file.read_text())
        model = botocore.session.Session().get_service_model("sagemaker").operation_model(operation)
        assert model.input_shape
        validate_parameters(request, model.input_shape)
        return dict(request)


@pytest.fixture
def sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSdk:
    fake = FakeSdk(tmp_path)
    monkeypatch.setattr("cli.train.SDK_PYTHON", fake.python)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_train_on_sagemaker_submits_a_training_job(sdk: FakeSdk) -> None:
    result = run("train", "portrait", "lr=0.001", "steps=500", "--on=sagemaker", "--no-spot", *ON_SAGEMAKER)
    assert result.exit_code == 0, result.output
    assert "Training job job-1" in result.output
    request = sdk.request("CreateTrainingJob")
    assert request["HyperParameters"] == {"network": "portrait", "lr": "0.001", "steps": "500"}
    assert request["EnableManagedSpotTraining"] is False


@pytest.mark.parametrize(("strategy", "early_stopping"), [("bayesian", "Auto"), ("hyperband", "Off")])
def test_tune_on_sagemaker_submits_a_tuning_job(sdk: FakeSdk, strategy: str, early_stopping: str) -> None:
    arguments = ("lr=0.001:0.1", "batch=8,16", "steps=5000", "--runs=6", "--seed=3", f"--strategy={strategy}")
    result = run("tune", "attention-unet", *arguments, "--on=sagemaker", *ON_SAGEMAKER)
    assert result.exit_code == 0, result.output
    assert "up to 6 runs" in result.output
    search = sdk.request("CreateHyperParameterTuningJob")["HyperParameterTuningJobConfig"]
    assert search["Strategy"] == strategy.capitalize()
    assert search["TrainingJobEarlyStoppingType"] == early_stopping
    assert search["RandomSeed"] == 3


def test_without_the_sdk_the_error_names_its_make_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.train.SDK_PYTHON", tmp_path / "python")
    result = run("train", "portrait", "--on=sagemaker", *ON_SAGEMAKER)
    assert result.exit_code == 1
    assert "make sagemaker" in result.output


def test_an_error_of_the_sdk_is_printed(sdk: FakeSdk) -> None:
    sdk.python.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('ml.g6.xlarge is limited to 0')\n")
    result = run("train", "portrait", "--on=sagemaker", *ON_SAGEMAKER)
    assert result.exit_code == 1
    assert "limited to 0" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "unet", "--data=x", "--out=y"), "network must be one of"),
        (("train", "portrait", "lr", "--data=x", "--out=y"), "NAME=VALUE"),
        (("train", "portrait", "lr=1", "lr=2", "--data=x", "--out=y"), "each name once"),
        (("train", "portrait", "side=33", "--data=x", "--out=y"), "multiple of 32"),
        (("train", "portrait", "--on=sagemaker", "--data=x", "--out=y"), "s3://bucket/prefix/"),
        (("train", "portrait", "--on=sagemaker", *ON_SAGEMAKER[:2]), "name the image and the role"),
        (("tune", "portrait", "lr=1", "--on=sagemaker", *ON_SAGEMAKER), "Name at least one setting to tune"),
        (("tune", "portrait", "lr=1:2", "steps=9", "--strategy=hyperband", "--on=sagemaker", *ON_SAGEMAKER), "got 1."),
        (("tune", "portrait", "steps=1:9", "--strategy=hyperband", "--on=sagemaker", *ON_SAGEMAKER), "fix steps"),
    ],
)
def test_an_invalid_command_line_exits_with_1_and_a_message(
    sdk: FakeSdk, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output.replace("\n", " ")
    assert isinstance(result.exception, SystemExit)
    assert not sdk.file.exists()


@pytest.mark.parametrize("command", ["train", "tune"])
def test_the_help_lists_every_setting_with_its_default(command: str) -> None:
    shown = " ".join(CliRunner().invoke(app, [command, "--help"]).output.split())
    for name, text in descriptions().items():
        assert f"{name}: {' '.join(text.split())}." in shown
