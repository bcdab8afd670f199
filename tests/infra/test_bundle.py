from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from tests.infra.conftest import Template


@pytest.fixture(scope="module")
def zipped(template: Template) -> zipfile.ZipFile:
    """The uploaded zip of all functions."""
    (key,) = {function["Code"]["S3Key"] for function in template.functions}
    files = json.loads((template.folder / "Maskdrop-dev.assets.json").read_text())["files"]
    source = files[key.removesuffix(".zip")]["source"]
    assert source["packaging"] == "zip"
    folder = template.folder / source["path"]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.rglob("*"):
            archive.write(path, path.relative_to(folder))
    return zipfile.ZipFile(buffer)


def test_the_zip_contains_lambdas_and_maskdrop(zipped: zipfile.ZipFile) -> None:
    assert {"lambdas/ingest.py", "lambdas/adapters/jobs.py", "maskdrop/flow.py"} <= set(zipped.namelist())


def test_the_zip_contains_no_compiled_code(zipped: zipfile.ZipFile) -> None:
    endings = {Path(name).suffix for name in zipped.namelist()}
    assert not endings & {".so", ".pyc", ".pyd", ".dll", ".dylib"}
    tags = [zipped.read(name).decode() for name in zipped.namelist() if name.endswith(".dist-info/WHEEL")]
    assert tags
    assert all("Root-Is-Purelib: true" in tag for tag in tags)


def test_the_zip_is_smaller_than_5_mb(zipped: zipfile.ZipFile) -> None:
    size = sum(entry.compress_size for entry in zipped.infolist())
    assert size < 5_000_000


def test_the_zip_contains_no_tests_no_model_and_no_boto3(zipped: zipfile.ZipFile) -> None:
    top = {Path(name).parts[0] for name in zipped.namelist()}
    assert not top & {"tests", "sagemaker_model", "infra", "local", "boto3", "botocore", "bin"}
