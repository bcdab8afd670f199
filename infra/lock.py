"""Writes the locks of what is deployed: every package with its version and the SHA-256 of its wheels.

    python -m infra.lock

pip refuses a file with another digest, so that neither an index nor a mirror can replace a package. A lock is written
again when its requirements file changes (`make lock`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.sources import PURE_PYTHON, ROOT

GLIBC = ("2_17", "2_26", "2_27", "2_28", "2_31", "2_34", "2_35", "2_39")
"""Versions of glibc for which wheels of the container may be built: it has 2.41."""

HEAD = "# Written by `make lock` from {}: do not edit.\n"


@dataclass(frozen=True, slots=True)
class Lock:
    """requirements: file with the direct pins. options: options of pip that select the wheels."""

    requirements: str
    options: tuple[str, ...]

    @property
    def path(self) -> Path:
        return (ROOT / self.requirements).with_suffix(".lock")


CONTAINER = (
    *("--only-binary=:all:", "--python-version", "3.13", "--platform", "manylinux2014_x86_64"),
    *(word for version in GLIBC for word in ("--platform", f"manylinux_{version}_x86_64")),
)
"""pip options of the container, which AWS runs on x86-64 only."""

LOCKS = (
    Lock("lambdas/requirements.txt", PURE_PYTHON),
    Lock("sagemaker_model/serving/requirements.txt", CONTAINER),
)
"""torch and what the GPU image has besides are pinned by version alone: their wheels have 3 GB."""


def text_of(lock: Lock) -> str:
    """Returns the lock. Raises CalledProcessError where pip finds no wheels, for one without network access."""
    lines = []
    for package in _resolved(lock.requirements, lock.options):
        name, version = package["metadata"]["name"].replace("_", "-").lower(), package["metadata"]["version"]
        digest = package["download_info"]["archive_info"]["hashes"]["sha256"]
        lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return HEAD.format(Path(lock.requirements).name) + "".join(sorted(lines))


def _resolved(requirements: str, options: tuple[str, ...]) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        pip += ["--ignore-installed", "--report", str(report), "--target", folder, *options]
        subprocess.run([*pip, "--requirement", ROOT / requirements], check=True)  # noqa: S603  fixed arguments
        packages: list[dict[str, Any]] = json.loads(report.read_text())["install"]
        return packages


if __name__ == "__main__":
    for each in LOCKS:
        each.path.write_text(text_of(each))
