"""Watches `drop/`: a photo that is put there goes through the stack, and its result comes back to `results/`.

drop/a.jpg goes to the default preset, drop/webp/a.jpg to the preset `webp`: the folders of the inbox.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from httpx2 import TransportError
from watchfiles import Change, watch

from local.config import LocalConfig, LocalError
from local.pictures import ENDED, Pictures

SETTLED_S = 0.5
"""A file whose size and time have not changed for so long is taken to be complete."""

TICK_MS = 300
UNFINISHED = (".part", ".crdownload", ".tmp", "~")
"""How programs name files that they are still writing."""

Say = Callable[[str], None]


@dataclass
class Watch:
    """What lies in the folder and is not yet settled, and what is on its way."""

    config: LocalConfig
    pictures: Pictures
    say: Say
    unsettled: dict[Path, tuple[int, float, float]] = field(default_factory=dict)
    on_the_way: dict[str, Path] = field(default_factory=dict)

    def run(self) -> Iterator[None]:
        """Yields after each look at the folder, a few times a second, for ever. Raises KeyboardInterrupt."""
        self.config.drop.mkdir(parents=True, exist_ok=True)
        looked = False
        for changes in watch(self.config.drop, rust_timeout=TICK_MS, yield_on_timeout=True):
            if not looked:  # after the watch has begun, so that nothing falls between the two
                looked = True
                for path in self.config.drop.rglob("*"):
                    if not self._has_result(path):
                        self._notice(path)
            for change, name in changes:
                if change is not Change.deleted:
                    # A folder that is moved in is announced alone, without what it holds.
                    path = Path(name)
                    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
                        self._notice(one)
            try:
                self._send()
                self._collect()
            except (LocalError, ClientError, BotoCoreError, TransportError, OSError) as error:
                self.say(f"[red]{error}[/red]")
            yield

    def _has_result(self, path: Path) -> bool:
        relative = Path(self._name(path))
        return any((self.config.results / relative.parent).glob(f"{relative.name}.*"))

    def _name(self, path: Path) -> str:
        """The key below `inbox/` of a file in the folder."""
        relative = path.relative_to(self.config.drop)
        return relative.as_posix() if len(relative.parts) > 1 else f"default/{relative.as_posix()}"

    def _notice(self, path: Path) -> None:
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(UNFINISHED):
            self.unsettled[path] = (-1, 0.0, time.monotonic())

    def _send(self) -> None:
        for path, (size, modified, since) in list(self.unsettled.items()):
            try:
                found = path.stat()
            except FileNotFoundError:
                del self.unsettled[path]
                continue
            if (found.st_size, found.st_mtime) != (size, modified):
                self.unsettled[path] = (found.st_size, found.st_mtime, time.monotonic())
            elif time.monotonic() - since >= SETTLED_S:
                job_id = self.pictures.drop(self._name(path), path.read_bytes())
                del self.unsettled[path]
                self.on_the_way[job_id] = path
                self.say(f"{path.name}: on its way")

    def _collect(self) -> None:
        for job_id, path in list(self.on_the_way.items()):
            job = self.pictures.job(job_id)
            if job is None or job["state"] not in ENDED:
                continue
            del self.on_the_way[job_id]
            self.say(f"{path.name}: {self._end(job)}")

    def _end(self, job: dict[str, Any]) -> str:
        if job["state"] == "failed":
            return f"[red]{job['error']['message']}[/red] ({job['error']['code']})"
        return f"[green]{self.pictures.fetch(job, self.config.results)}[/green]"
