"""Files of a watched folder that other programs have finished writing."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

SETTLED_S = 0.5
"""Seconds without a change of size or modification time after which a file counts as complete."""

UNFINISHED = (".part", ".crdownload", ".tmp", "~")
"""Suffixes of files that browsers and other programs are still writing."""


@dataclass
class Settling:
    """Files that may still change, with their size, modification time and time of the last change."""

    files: dict[Path, tuple[int, float, float]] = field(default_factory=dict)

    def add(self, path: Path) -> None:
        """Adds a file, or the files of a folder: a moved folder causes one event, without events for its files."""
        for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
            if one.is_file() and not one.name.startswith(".") and not one.name.endswith(UNFINISHED):
                self.files[one] = (-1, 0.0, time.monotonic())

    def settled(self) -> list[Path]:
        """Returns the files that have not changed for SETTLED_S seconds. They stay until `remove`."""
        ready = []
        for path, (size, modified, since) in list(self.files.items()):
            try:
                status = path.stat()
            except FileNotFoundError:
                del self.files[path]
                continue
            if (status.st_size, status.st_mtime) != (size, modified):
                self.files[path] = (status.st_size, status.st_mtime, time.monotonic())
            elif time.monotonic() - since >= SETTLED_S:
                ready.append(path)
        return ready

    def remove(self, path: Path) -> None:
        """Removes a file that was processed. A later change adds it again."""
        self.files.pop(path, None)
