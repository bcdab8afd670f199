"""`maskdrop train` and `tune` as a user types them; training itself is in tests/unit/sagemaker_model/training."""

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
    """SageMaker's own rules for requests, and no SageMaker."""
    client = boto3.client("sagemaker", "eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    monkeypatch.setattr("cli.train.boto3.client", lambda _: client)
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_a_training_job_is_sent(sagemaker: Stubber) -> None:
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
    done = run("train", "portrait", "lr=0.001", "steps=500", "--on=sagemaker", "--no-spot", *ON_SAGEMAKER)
    assert done.exit_code == 0, done.output
    assert "Training job portrait-" in done.output


def test_a_tuning_job_is_sent(sagemaker: Stubber) -> None:
    answer = {"HyperParameterTuningJobArn": "arn:aws:sagemaker:eu-west-1:1:x"}
    sagemaker.add_response("create_hyper_parameter_tuning_job", answer)
    done = run("tune", "attention-unet", "lr=0.001:0.1", "batch=8,16", "steps=500", "--runs=6", *ON_SAGEMAKER)
    assert done.exit_code == 0, done.output
    assert "6 runs" in done.output


def test_what_sagemaker_refuses_is_said(sagemaker: Stubber) -> None:
    sagemaker.add_client_error("create_training_job", "ResourceLimitExceeded", "ml.g6.xlarge is limited to 0")
    done = run("train", "portrait", "--on=sagemaker", *ON_SAGEMAKER)
    assert done.exit_code == 1
    assert "limited to 0" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train", "unet", "--data=x", "--out=y"), "There is no network"),
        (("train", "portrait", "lr", "--data=x", "--out=y"), "NAME=VALUE"),
        (("train", "portrait", "lr=1", "lr=2", "--data=x", "--out=y"), "each name once"),
        (("train", "portrait", "side=33", "--data=x", "--out=y"), "multiple of 32"),
        (("train", "portrait", "--on=sagemaker", "--data=x", "--out=y"), "s3://bucket/prefix/"),
        (("train", "portrait", "--on=sagemaker", *ON_SAGEMAKER[:2]), "SageMaker request failed"),
        (("tune", "portrait", "lr=1", *ON_SAGEMAKER), "Name what to find"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(sagemaker: Stubber, words: tuple[str, ...], said: str) -> None:
    done = run(*words)
    assert done.exit_code == 1
    assert said in done.output
    assert isinstance(done.exception, SystemExit)
