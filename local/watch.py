"""Watches `drop/`: uploads each new photo to the stack and downloads its result to `results/`.

The folder selects the preset, as in the inbox: drop/a.jpg uses the default preset, drop/webp/a.jpg the preset `webp`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from httpx2 import TransportError
from rich.markup import escape
from watchfiles import Change, watch

from local.config import LocalConfig, LocalError
from local.images import ENDED, ImageClient
from local.settling import Settling

TICK_MS = 300
"""Interval between two checks of the folder, in milliseconds."""

FAILED = "failed.csv"
"""Name of the list of failed photos in `results/`."""

Print = Callable[[str], None]


@dataclass
class Watch:
    """The state of a watched folder.

    unsettled: files that may still change.
    submitted: unfinished jobs by ID, with the path of their photo.
    done: photos with a result. failed: code and message of each failed photo. Both by path below `drop/`.
    """

    config: LocalConfig
    images: ImageClient
    print: Print
    unsettled: Settling = field(default_factory=Settling)
    submitted: dict[str, Path] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)

    def run(self) -> Iterator[None]:
        """Watches the folder until KeyboardInterrupt. Yields after each check, about every TICK_MS milliseconds."""
        self.config.drop.mkdir(parents=True, exist_ok=True)
        scanned = False
        for changes in watch(self.config.drop, rust_timeout=TICK_MS, yield_on_timeout=True):
            if not scanned:  # after the watch has begun, so that no file is missed
                scanned = True
                for path in self.config.drop.rglob("*"):
                    if not self._has_result(path):
                        self.unsettled.add(path)
            for change, name in changes:
                if change is not Change.deleted:
                    self.unsettled.add(Path(name))
            try:
                self._upload()
                self._download()
            except (LocalError, ClientError, BotoCoreError, TransportError, OSError) as error:
                self.print(f"[red]{escape(str(error))}[/red]")
            yield

    def _has_result(self, path: Path) -> bool:
        relative = Path(self._name(path))
        return any((self.config.results / relative.parent).glob(f"{relative.name}.*"))

    def _name(self, path: Path) -> str:
        """Returns the key below `inbox/` of a file in the folder."""
        relative = path.relative_to(self.config.drop)
        return relative.as_posix() if len(relative.parts) > 1 else f"default/{relative.as_posix()}"

    def _upload(self) -> None:
        for path in self.unsettled.settled():
            job_id = self.images.upload(self._name(path), path.read_bytes())
            self.unsettled.remove(path)
            self.submitted[job_id] = path
            self.print(f"{escape(self._relative(path))}: submitted")

    def _download(self) -> None:
        for job_id, path in list(self.submitted.items()):
            job = self.images.job(job_id)
            if job is None or job["state"] not in ENDED:
                continue
            del self.submitted[job_id]
            self.print(f"{escape(self._relative(path))}: {self._outcome(self._relative(path), job)}")

    def _outcome(self, photo: str, job: dict[str, Any]) -> str:
        """Records the end of a job. Returns the path of its result, with the warnings; or its error."""
        self.failed.pop(photo, None)
        if job["state"] == "failed":
            error = job["error"]
            self.failed[photo] = (error["code"], error["message"])
            outcome = f"[red]{escape(error['message'])}[/red] ({error['code']})"
        else:
            self.done.add(photo)
            warnings = "".join(f" [yellow]{warning}[/yellow]" for warning in job["warnings"])
            outcome = f"[green]{escape(str(self.images.download(job, self.config.results)))}[/green]{warnings}"
        self._list_failed()
        return outcome

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.config.drop).as_posix()

    def _list_failed(self) -> None:
        """Writes the failed photos of this run to the list, or removes it without any."""
        path = self.config.results / FAILED
        if not self.failed:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("photo", "code", "message"))
            rows.writerows((photo, *error) for photo, error in sorted(self.failed.items()))

    def summary(self) -> str:
        """Returns the number of photos of this run by their end."""
        parts = [f"{len(self.done)} done"]
        if self.failed:
            parts.append(f"{len(self.failed)} failed: {self.config.results / FAILED}")
        if unfinished := len(self.submitted) + len(self.unsettled.files):
            parts.append(f"{unfinished} not finished: submitted again at the next start")
        return "; ".join(parts) + "."
