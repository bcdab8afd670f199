"""Drops the rights of root: SageMaker and Docker start the container as root, and it decodes files of strangers."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


def drop_root(user: int | None, *, reads: Path, owns: Path | None = None) -> None:
    """Continues as the user and group `user`, without other groups. Does nothing unless the process runs as root.

    user: numeric ID; None keeps root. reads: folder that the process reads; where it is closed to others, the process
    remains root and logs it. owns: folder that the process writes; it is created, and given to the user.
    """
    if user is None or os.geteuid() != 0:
        return
    if not _is_open(reads):
        log.warning("the server runs as root: %s is readable by root alone", reads)
        return
    if owns:
        owns.mkdir(parents=True, exist_ok=True)
        for path in (owns, *owns.rglob("*")):
            os.chown(path, user, user, follow_symlinks=False)
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
    os.environ["HOME"] = "/tmp"  # noqa: S108  caches of libraries
    log.info("the server runs as user %d", user)


def _is_open(folder: Path) -> bool:
    """Whether everyone may read a folder and all files in it."""
    paths = [*reversed(folder.parents), folder, *folder.rglob("*")]
    return all(path.stat().st_mode & (0o1 if path.is_dir() else 0o4) for path in paths if path.exists())
