"""What the command `worker` checks and installs before it loads engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from maskdrop.errors import NotAllowed
from sagemaker_model import __main__ as command
from sagemaker_model.serving.worker_settings import WorkerSettings
from sagemaker_model.settings import ServerSettings
from sagemaker_model.weights.store import InvalidWeights, digest, expected_sha256, named
from tests.unit.cli.aws import Error, FakeAws
from tests.unit.sagemaker_model.weights.fake_checkpoints import a_checkpoint


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> FakeAws:
    """An account that owns no bucket and no queue."""
    aws = FakeAws(
        {
            "sts.GetCallerIdentity": {"Account": "111122223333"},
            "s3.HeadBucket": Error("403"),
            "sqs.GetQueueUrl": Error("AWS.SimpleQueueService.NonExistentQueue"),
        }
    )

    def client(service: str, **_: Any) -> Any:
        return aws.client(service)

    monkeypatch.setattr("boto3.client", client)
    return aws


def test_the_default_target_bucket_must_belong_to_the_account(aws: FakeAws) -> None:
    with pytest.raises(NotAllowed, match="The account 111122223333 has no bucket 'background-removal'"):
        command.run_worker(ServerSettings(), WorkerSettings(), frozenset())
    request = dict(aws.requests)["s3.HeadBucket"]
    assert request == {"Bucket": "background-removal", "ExpectedBucketOwner": "111122223333"}


def test_without_credentials_the_error_names_them(monkeypatch: pytest.MonkeyPatch, aws: FakeAws) -> None:
    def client(service: str, **_: Any) -> Any:
        if service == "sts":
            raise NoCredentialsError
        return aws.client(service)

    monkeypatch.setattr("boto3.client", client)
    with pytest.raises(NotAllowed, match="credentials"):
        command.run_worker(ServerSettings(), WorkerSettings(), frozenset())


def test_a_bucket_that_the_user_names_may_belong_to_another_account(aws: FakeAws) -> None:
    settings = WorkerSettings(aws_target_bucket_name="shared")
    with pytest.raises(NotAllowed, match="SQS refuses the queue"):
        command.run_worker(ServerSettings(), settings, {"aws_target_bucket_name"})


def test_a_checkpoint_is_imported_as_the_weights_of_modnet(tmp_path: Path) -> None:
    checkpoint, folder = tmp_path / "model_best.pth", tmp_path / "weights"
    folder.mkdir()
    checkpoint.write_bytes(a_checkpoint())
    assert command.install_model(str(checkpoint), folder, required=True) == "modnet"
    assert expected_sha256(named("modnet"), folder) == digest(checkpoint)


def test_without_the_default_checkpoint_the_default_engine_is_used(tmp_path: Path) -> None:
    assert command.install_model(str(tmp_path / "none.pth"), tmp_path, required=False) == ""
    assert command.install_model(None, tmp_path, required=True) == ""
    with pytest.raises(InvalidWeights, match="cannot be read"):
        command.install_model(str(tmp_path / "none.pth"), tmp_path, required=True)
