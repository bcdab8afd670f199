"""The commands `maskdrop train` and `tune`; tests of the training loop are in tests/unit/sagemaker_model/training."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from botocore.stub import ANY, Stubber
from typer.testing import CliRunner, Result

from cli.app import app

ON_SAGEMAKER = (
    "--data=s3://mine/people/",
    "--out=s3://mine/runs/",
    "--image=1.dkr.ecr.eu-west-1.amazonaws.com/maskdrop-dev:1",
    "--role=arn:aws:iam::123456789012:role/training",
)


@pytest.fixture
def sagemaker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubber]:
    """A stubbed SageMaker client, which validates requests by the service model."""
    client = boto3.client("sagemaker", "eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr("cli.train.boto3.client", lambda _: client)
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_train_on_sagemaker_creates_a_training_job(sagemaker: Stubber) -> None:
    expected = {
        "HyperParameters": {"network": "portrait", "lr": "0.001", "steps": "500"},
        "EnableManagedSpotTraining": False,
        **dict.fromkeys(
            (
                "TrainingJobName",
                "AlgorithmSpecification",
                "RoleArn",
                "InputDataConfig",
                "OutputDataConfig",
                "ResourceConfig",
                "StoppingCondition",
                "CheckpointConfig",
            ),
            ANY,
        ),
    }
    sagemaker.add_response("create_training_job", {"TrainingJobArn": "arn:aws:sagemaker:eu-west-1:1:x"}, expected)
    result = run("train", "portrait", "lr=0.001", "steps=500", "--on=sagemaker", "--no-spot", *ON_SAGEMAKER)
    assert result.exit_code == 0, result.output
    assert "Training job portrait-" in result.output


def test_tune_creates_a_tuning_job(sagemaker: Stubber) -> None:
    response = {"HyperParameterTuningJobArn": "arn:aws:sagemaker:eu-west-1:1:x"}
    sagemaker.add_response("create_hyper_parameter_tuning_job", response)
    result = run("tune", "attention-unet", "lr=0.001:0.1", "batch=8,16", "steps=500", "--runs=6", *ON_SAGEMAKER)
    assert result.exit_code == 0, result.output
    assert "up to 6 runs" in result.output


def test_a_sagemaker_error_is_printed(sagemaker: Stubber) -> None:
    sagemaker.add_client_error("create_training_job", "ResourceLimitExceeded", "ml.g6.xlarge is limited to 0")
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
        (("train", "portrait", "--on=sagemaker", *ON_SAGEMAKER[:2]), "SageMaker request failed"),
        (("tune", "portrait", "lr=1", *ON_SAGEMAKER), "Name at least one setting to tune"),
    ],
)
def test_an_invalid_command_line_exits_with_1_and_a_message(
    sagemaker: Stubber, arguments: tuple[str, ...], message: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert isinstance(result.exception, SystemExit)
