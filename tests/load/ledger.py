"""The jobs that the stack accepted, and whether each of them reached a final state.

A job is accepted when the API returned 201 or 202 for it, or when S3 stored a dropped photo. It is lost if the jobs API
does not show it as `done` or `failed` within the time to settle.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

FINAL = ("done", "failed")

PAGE = 200
"""Jobs per page: the maximum of the API."""

OVERLAP = timedelta(seconds=30)
"""Time by which two readings overlap, since the index of the table is eventually consistent and clocks differ."""

Fetch = Callable[[str, dict[str, str]], dict[str, Any] | None]
"""Sends GET path?query to the API. Returns the JSON, or None without a successful response."""


@dataclass(slots=True)
class Accepted:
    """One accepted job. kind: kind of the request that created it. at: time of the request in UTC."""

    id: str
    kind: str
    at: datetime
    ended: threading.Event = field(default_factory=threading.Event)
    job: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Time from the request to the end of the job, by the clock of the stack for the end."""
        return (datetime.fromisoformat(self.job["finished_at"]) - self.at).total_seconds()


class Ledger:
    """Accepted jobs and their ends. Reads pages of finished jobs instead of each job, which would load the API."""

    def __init__(self, fetch: Fetch, *, on_end: Callable[[Accepted], object] = lambda _: None) -> None:
        """on_end: called once for each job that reached a final state."""
        self._fetch, self._on_end = fetch, on_end
        self._lock = threading.Lock()
        self._open: dict[str, Accepted] = {}
        self._since = datetime.now(UTC) - OVERLAP
        self.accepted = 0
        self.ends: Counter[str] = Counter()
        """`done`, and the error codes of failed jobs -> number of jobs."""

    @property
    def lost(self) -> list[Accepted]:
        """The jobs that have not ended. Before `settle` has returned, they may be in progress."""
        return list(self._open.values())

    def accept(self, job_id: str, kind: str, at: datetime | None = None) -> Accepted:
        """Records an accepted job; a repeated id is the same job."""
        with self._lock:
            if known := self._open.get(job_id):
                return known
            self.accepted += 1
            entry = self._open[job_id] = Accepted(job_id, kind, at or datetime.now(UTC))
            return entry

    def read(self) -> None:
        """Reads the jobs that finished since the last reading."""
        if not self._open:
            return
        began = datetime.now(UTC)
        complete = True
        for state in FINAL:
            query = {"state": state, "since": self._since.isoformat(), "limit": str(PAGE)}
            cursor: str | None = ""
            while cursor is not None:
                page = self._fetch("/v1/jobs", query | ({"cursor": cursor} if cursor else {}))
                if page is None:
                    complete = False
                    break
                for job in page["jobs"]:
                    self._end(job)
                cursor = page["cursor"]
        if complete:
            self._since = began - OVERLAP

    def settle(self, timeout_s: float, pause_s: float = 1.0) -> None:
        """Reads until every job has ended or the time is over; then reads each open one."""
        deadline = time.monotonic() + timeout_s
        while self._open and time.monotonic() < deadline:
            self.read()
            if self._open:
                time.sleep(pause_s)
        for entry in list(self._open.values()):
            job = self._fetch(f"/v1/jobs/{entry.id}", {})
            if job:
                self._end(job)

    def _end(self, job: dict[str, Any]) -> None:
        if job["state"] not in FINAL:
            return
        with self._lock:
            entry = self._open.pop(job["id"], None)
        if entry:
            entry.job = job
            self.ends["done" if job["state"] == "done" else job["error"]["code"]] += 1
            entry.ended.set()
            self._on_end(entry)

    def lines(self) -> Iterator[str]:
        """Yields the accounting for a person."""
        ends = ", ".join(f"{count} {name}" for name, count in sorted(self.ends.items())) or "none"
        yield f"accepted {self.accepted} jobs; ended: {ends}; lost: {len(self.lost)}"
        for entry in self.lost[:20]:
            yield f"  lost: {entry.id} ({entry.kind}, {entry.at:%H:%M:%S})"
