"""The source files of the assets, and digests of them. Imports no CDK, so that `maskdrop doctor` can name the image."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PURE_PYTHON = (
    *("--no-deps", "--no-compile", "--only-binary=:all:"),
    *("--platform", "any", "--implementation", "py", "--abi", "none", "--python-version", "3.14"),
)
"""pip options that select wheels without compiled code: one zip runs on arm64, x86 and every supported Python."""


CONTAINER = ("maskdrop", "sagemaker_model", "lambdas", "standalone", "web")
"""Folders in the image. The last three are for its command `serve-api`."""

UNPACKED = {"__pycache__", "vendor"}
"""Folders that are in no asset of functions and containers. `web/vendor/` is there after `make preview` only, and must
not change the tag of the image."""


def container_digest() -> str:
    """Returns the tag of the image: 16 hexadecimal digits of the digest of its source files."""
    return digest(container_files())[:16]


def cpu_tag(image_tag: str) -> str:
    """Returns the tag of the CPU image: the files of `image_tag` without torch and the CUDA libraries."""
    return f"{image_tag}-cpu"


def container_files() -> list[Path]:
    return [*itertools.chain.from_iterable(map(files_of, CONTAINER))]


def files_of(folder: str) -> Iterator[Path]:
    """Yields the files of a top-level folder in sorted order, without the folders in UNPACKED."""
    return (path for path in sorted((ROOT / folder).rglob("*")) if path.is_file() and not UNPACKED & {*path.parts})


def digest(files: Sequence[Path]) -> str:
    """Returns the SHA-256 of the paths and contents of files, and of the pip options."""
    total = hashlib.sha256(" ".join(PURE_PYTHON).encode())
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(ROOT).as_posix()} {content}\n".encode())
    return total.hexdigest()
