"""Atomic replacement of files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path, *, concurrent: bool = False, sync: bool = True) -> Iterator[Path]:
    """Yields the path of a temporary file that replaces `path` at the end of the block.

    Readers see the previous file or the complete new one, also after a crash. An error in the block deletes the
    temporary file and keeps the previous one. The temporary file is hidden, in the same folder and with the same
    suffix; a crash leaves it there, and the next write of `path` overwrites it.
    concurrent: several threads or processes may write `path` at the same time; temporary files get random names, so
        that the caller must delete what a crash leaves there.
    sync: flush the file to disk first; a cache can do without.
    Raises OSError.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}-{path.name}" if concurrent else f".{path.name}")
    try:
        yield temporary
        if sync:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as those of safetensors do: eight bytes, then JSON. Raises OSError."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"
