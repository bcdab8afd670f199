"""The assets built from this repository: the zip shared by all functions, and the source of the container image.

Each asset is named by a digest of its inputs. An unchanged tree produces an unchanged template, and pip runs only when
the packages change. Assets are built under `.local/build/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from aws_cdk import AssetHashType
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

from infra.sources import PURE_PYTHON, ROOT, container_digest, container_files, digest, files_of

BUILD = ROOT / ".local" / "build"


def lambda_code() -> lambda_.Code:
    """Builds the zip of all functions: maskdrop/, lambdas/ and lambdas/requirements.lock. boto3 is in the runtime."""
    requirements = ROOT / "lambdas" / "requirements.lock"
    files = [*files_of("maskdrop"), *files_of("lambdas")]
    name = digest([requirements, *files])

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PURE_PYTHON]
        subprocess.run([*pip, "--require-hashes", "--requirement", requirements, "--target", folder], check=True)  # noqa: S603
        # Command-line scripts contain the path of this machine's Python.
        shutil.rmtree(folder / "bin", ignore_errors=True)

    def fill(folder: Path) -> None:
        shutil.copytree(_prepared(f"packages-{digest([requirements])}", install), folder, dirs_exist_ok=True)
        _copy(files, folder)

    folder = _prepared(f"lambdas-{name}", fill)
    return lambda_.Code.from_asset(str(folder), asset_hash=name, asset_hash_type=AssetHashType.CUSTOM)


def container_source(scope: Construct, construct_id: str) -> s3_assets.Asset:
    """Returns the source of the image as a zip asset in S3."""
    folder = _prepared(f"container-{container_digest()}", lambda folder: _copy(container_files(), folder))
    return s3_assets.Asset(
        scope, construct_id, path=str(folder), asset_hash=container_digest(), asset_hash_type=AssetHashType.CUSTOM
    )


def _copy(files: Sequence[Path], folder: Path) -> None:
    for path in files:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _prepared(name: str, fill: Callable[[Path], None]) -> Path:
    """Returns the folder `.local/build/<name>`, filled on first use. An interrupted build leaves no partial folder."""
    folder = BUILD / name
    if not folder.exists():
        unfinished = BUILD / f"{name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        fill(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:  # a concurrent synthesis finished first
            shutil.rmtree(unfinished)
    return folder
