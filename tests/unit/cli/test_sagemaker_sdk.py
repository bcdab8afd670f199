"""Jobs that the SageMaker SDK submits to a stub of the API: the requests equal those of boto3.

`make sagemaker` installs the SDK. Without it, only the tests of the stub run.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import build_opener

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError
from typer.testing import CliRunner

from cli.app import app
from cli.train import SDK_PYTHON
from sagemaker_model.training import submit
from sagemaker_model.training.jobs import JobConfig, training_job, tuning_job
from sagemaker_model.training.settings import SETTINGS
from tests.sagemaker_api import SageMakerApi
from tests.unit.cli.test_train import ON_SAGEMAKER

needs_sdk = pytest.mark.skipif(not SDK_PYTHON.exists(), reason="needs the environment of `make sagemaker`")

CHANNELS = {"train": "s3://mine/people/", "val": "s3://mine/val/", "start": "s3://mine/selfie/"}
RANGES = {"lr": "0.0001:0.1", "ema": "0.5:0.9", "batch": "8,16", "warmup": "1:100"}


def config(*, spot: bool) -> JobConfig:
    return JobConfig(
        image="123456789012.dkr.ecr.eu-west-1.amazonaws.com/maskdrop-dev:1",
        role="arn:aws:iam::123456789012:role/training",
        out="s3://mine/runs/",
        channels=CHANNELS,
        spot=spot,
    )


def requests_of(network: str) -> list[dict[str, Any]]:
    """The requests of every kind of job for a network."""
    fixed = {"steps": "900", "validate_every": "100"}
    spot = config(spot=True)
    return [
        training_job(f"{network}-spot", network, fixed, spot),
        training_job(f"{network}-demand", network, {}, config(spot=False)),
        tuning_job(f"{network}-bayes", network, fixed, RANGES, spot, runs=6, at_once=2),
        tuning_job(f"{network}-band", network, fixed, RANGES, spot, runs=30, at_once=3, strategy="Hyperband", seed=7),
    ]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[SageMakerApi]:
    with SageMakerApi() as api:
        for name, value in api.environment().items():
            monkeypatch.setenv(name, value)
        yield api


def send(client: Any, request: dict[str, Any]) -> None:
    """Sends a request by boto3."""
    if "TrainingJobName" in request:
        client.create_training_job(**request)
    else:
        client.create_hyper_parameter_tuning_job(**request)


def without_time_stamp(request: dict[str, Any], base_name: str) -> dict[str, Any]:
    """Removes the time stamp that the SDK appends to the name of a training job."""
    if name := request.get("TrainingJobName"):
        prefix, _, stamp = name.rpartition("-")
        assert (prefix, stamp.isdigit(), len(stamp)) == (base_name, True, len("20261129151210"))
        return {**request, "TrainingJobName": prefix}
    return request


@needs_sdk
def test_the_requests_of_the_sdk_equal_those_of_boto3(api: SageMakerApi) -> None:
    requests = [request for network in SETTINGS for request in requests_of(network)]
    client = boto3.client("sagemaker")
    for request in requests:
        send(client, request)
    by_boto3 = [call for call in api.calls if call.operation.startswith("Create")]
    api.calls.clear()
    lines = "\n".join(map(json.dumps, requests))
    command = [str(SDK_PYTHON), "-I", submit.__file__]
    result = subprocess.run(command, input=lines, text=True, capture_output=True)  # noqa: S603 - fixed arguments
    assert result.returncode == 0, result.stderr
    by_sdk = [call for call in api.calls if call.operation.startswith("Create")]
    assert len(by_sdk) == len(by_boto3) == 4 * len(SETTINGS)
    for request, expected, call in zip(requests, by_boto3, by_sdk, strict=True):
        assert call.operation == expected.operation
        assert without_time_stamp(call.parameters, request.get("TrainingJobName", "")) == expected.parameters
    names = [
        call.parameters.get("TrainingJobName") or call.parameters["HyperParameterTuningJobName"] for call in by_sdk
    ]
    assert result.stdout.split() == names
    assert api.others == []  # neither telemetry nor S3, STS or IAM


@needs_sdk
def test_train_and_tune_on_sagemaker_print_the_names_of_their_jobs(api: SageMakerApi) -> None:
    trained = CliRunner().invoke(app, ["train", "modnet", "lr=0.001", "--on=sagemaker", *ON_SAGEMAKER])
    assert trained.exit_code == 0, trained.output
    (job,) = api.requests("CreateTrainingJob")
    assert job["HyperParameters"] == {"network": "modnet", "lr": "0.001"}
    assert job["TrainingJobName"] in trained.output
    tuned = CliRunner().invoke(
        app, ["tune", "modnet", "lr=0.001:0.1", "--strategy=hyperband", "--on=sagemaker", *ON_SAGEMAKER]
    )
    assert tuned.exit_code == 0, tuned.output
    (job,) = api.requests("CreateHyperParameterTuningJob")
    assert job["HyperParameterTuningJobConfig"]["Strategy"] == "Hyperband"
    assert job["HyperParameterTuningJobName"] in tuned.output


@needs_sdk
def test_an_error_of_sagemaker_is_printed(api: SageMakerApi) -> None:
    api.errors = {"CreateTrainingJob": ("ResourceLimitExceeded", "ml.g6.xlarge for spot usage is 0 Instances")}
    result = CliRunner().invoke(app, ["train", "portrait", "--on=sagemaker", *ON_SAGEMAKER])
    assert result.exit_code == 1
    assert "ml.g6.xlarge for spot usage is 0 Instances" in result.output.replace("\n", " ")


@needs_sdk
def test_without_a_region_the_error_names_it(api: SageMakerApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    result = CliRunner().invoke(app, ["train", "portrait", "--on=sagemaker", *ON_SAGEMAKER])
    assert result.exit_code == 1
    assert "region" in result.output
    assert api.calls == []


def test_the_stub_rejects_a_request_that_the_api_does_not_accept(api: SageMakerApi) -> None:
    job = training_job("one", "portrait", {}, config(spot=True))
    status, body = api.respond("CreateTrainingJob", {**job, "EarlyStopping": True})
    assert (status, body["__type"]) == (400, "ValidationException")
    assert "EarlyStopping" in body["message"]
    del job["RoleArn"]
    with pytest.raises(ClientError, match="RoleArn"):
        send(boto3.client("sagemaker", config=Config(parameter_validation=False)), job)
    assert api.calls == []


def test_the_stub_records_requests_to_other_services_and_hosts(api: SageMakerApi) -> None:
    with pytest.raises(ResponseParserError):
        boto3.client("sts").get_caller_identity()
    with pytest.raises(HTTPError):
        build_opener().open("http://telemetry.example/x")  # `urlopen` would keep the proxy for later tests
    assert api.others == ["POST /", "GET http://telemetry.example/x"]
