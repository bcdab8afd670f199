from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from pathlib import Path

import boto3
import pytest
from typer.testing import CliRunner

from cli.app import app
from local.config import KEY_ID, REGION, SECRET
from sagemaker_model.weights.store import MANIFEST, named
from tests.e2e.conftest import Running
from tests.unit.sagemaker_model.weights.fake_checkpoints import a_checkpoint

MODNET = named("modnet")


def test_large_weights_are_uploaded_to_s3_once_as_a_multipart_upload(
    running: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.config.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    checkpoint = io.BytesIO(a_checkpoint())
    with zipfile.ZipFile(checkpoint, "a") as archive:
        archive.writestr("archive/data/1", os.urandom(20_000_000))
    file = tmp_path / "mine.ckpt"
    file.write_bytes(checkpoint.getvalue())
    folder, prefix = ["--folder", str(tmp_path / "weights")], "models/1/"
    shutil.copytree(running.config.weights, tmp_path / "weights")
    # The inbox is versioned, and only objects below inbox/ create jobs.
    to = f"s3://{running.stack.inbox}/{prefix}"

    assert CliRunner().invoke(app, ["models", "import", "modnet", str(file), "--own", *folder]).exit_code == 0
    assert f"s3://{running.stack.inbox}" in CliRunner().invoke(app, ["models", "push", "--to", to, *folder]).output

    s3 = boto3.client("s3")
    first = s3.get_object(Bucket=running.stack.inbox, Key=prefix + MODNET.file)
    assert first["ETag"].endswith('-3"')  # parts of 8 MiB
    assert hashlib.sha256(first["Body"].read()).hexdigest() == first["Metadata"]["sha256"]
    assert s3.head_object(Bucket=running.stack.inbox, Key=prefix + MANIFEST)

    assert "already uploaded" in CliRunner().invoke(app, ["models", "push", "--to", to, *folder]).output
    versions = s3.list_object_versions(Bucket=running.stack.inbox, Prefix=prefix)["Versions"]
    assert [version["Key"] for version in versions].count(prefix + MODNET.file) == 1
