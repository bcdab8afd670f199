"""What is shipped from this repository: the one zip of all functions, and the source of the container.

Both are named by a digest of what they are made from, so an unchanged tree gives an unchanged template, and pip runs
only when the packages changed. Both are prepared under `.local/build/`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aws_cdk import AssetHashType
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3_assets as s3_assets
from constructs import Construct

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".local" / "build"

PURE_PYTHON = (
    *("--no-deps", "--no-compile", "--only-binary=:all:"),
    *("--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.14"),
)
"""Wheels without compiled code, so that one zip runs on arm64, on x86 and on every Python that we support."""


def lambda_code() -> lambda_.Code:
    """The zip of all functions: our folders and the packages of lambdas/requirements.txt. boto3 is the runtime's."""
    requirements = ROOT / "lambdas" / "requirements.txt"
    files = [*_sources("maskdrop"), *_sources("lambdas")]
    digest = _digest([requirements, *files])

    def install(folder: Path) -> None:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PURE_PYTHON]
        subprocess.run([*pip, "--requirement", requirements, "--target", folder], check=True)  # noqa: S603  our own words
        shutil.rmtree(folder / "bin", ignore_errors=True)  # scripts for a command line; they name this machine's Python

    def fill(folder: Path) -> None:
        shutil.copytree(_prepared(f"packages-{_digest([requirements])}", install), folder, dirs_exist_ok=True)
        _copy(files, folder)

    folder = _prepared(f"lambdas-{digest}", fill)
    return lambda_.Code.from_asset(str(folder), asset_hash=digest, asset_hash_type=AssetHashType.CUSTOM)


def container_digest() -> str:
    """The tag of the image: a digest of all that it is built from. 16 hexadecimal digits."""
    return _digest(_container_files())[:16]


def container_source(scope: Construct, construct_id: str) -> s3_assets.Asset:
    """What the image is built from, as a zip in S3."""
    folder = _prepared(f"container-{container_digest()}", lambda folder: _copy(_container_files(), folder))
    return s3_assets.Asset(
        scope, construct_id, path=str(folder), asset_hash=container_digest(), asset_hash_type=AssetHashType.CUSTOM
    )


def _container_files() -> list[Path]:
    return [*_sources("maskdrop"), *_sources("sagemaker_model")]


def _sources(folder: str) -> Iterator[Path]:
    """The files of a folder of ours, in a fixed order; not what Python compiled from them."""
    return (path for path in sorted((ROOT / folder).rglob("*")) if path.is_file() and "__pycache__" not in path.parts)


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256(" ".join(PURE_PYTHON).encode())
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def _copy(files: Sequence[Path], folder: Path) -> None:
    for path in files:
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _prepared(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `.local/build/<name>`, filled once. It appears whole or not at all, whatever is interrupted."""
    folder = BUILD / name
    if not folder.exists():
        unfinished = BUILD / f"{name}.{os.getpid()}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        fill(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:  # another synth was faster
            shutil.rmtree(unfinished)
    return folder
