"""The table of jobs in SQLite: a row has the JSON of a job, and the columns by which jobs are listed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from maskdrop.edit import PREVIOUS_STAGE, Candidate, Stage
from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Review, State
from maskdrop.record import iso
from maskdrop.services import Page, Selection
from maskdrop.wire import Outcome
from standalone.database import Database

Change = Callable[[Job], Job | None]
"""Returns a job after a change; None where its condition fails."""


class SqliteJobs:
    """Implements `maskdrop.services.Jobs`. Every change reads and writes its row in one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, job: Job) -> bool:
        with self._database.transaction() as connection:
            inserted = connection.execute("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?)", _row(job))
            return inserted.rowcount == 1

    def take(self, job_id: str, *, bundle: str, now: datetime, abandoned: datetime) -> Job | None:
        def change(job: Job) -> Job | None:
            if job.state == "submitted" and job.changed_at >= abandoned and job.bundle != bundle:
                return None
            if job.state == "queued" and job.stage == "edit":
                return None
            attempts = job.attempts + (job.state == "queued")
            return replace(job, state="submitted", bundle=bundle, attempts=attempts, changed_at=now)

        return self._change(job_id, ("queued", "submitted"), change)

    def requeue(self, job_id: str, *, bundle: str, now: datetime, give_back: bool = False) -> Job | None:
        def change(job: Job) -> Job | None:
            back = int(give_back and job.state == "submitted")
            queued = replace(job, state="queued", attempts=job.attempts - back, changed_at=now)
            return queued if job.bundle == bundle else None

        return self._change(job_id, ("queued", "submitted"), change)

    def done(self, job_id: str, outcome: Outcome, *, bundle: str, cost_usd: float | None, now: datetime) -> Job | None:
        def change(job: Job) -> Job | None:
            if job.state == "done" and job.bundle != bundle:
                return None
            return replace(
                job,
                state="done",
                bundle=bundle,
                result=outcome.result,
                results=outcome.results,
                subject=outcome.subject,
                warnings=outcome.warnings,
                timings=outcome.timings,
                error=None,
                cost_usd=cost_usd,
                changed_at=now,
                finished_at=now,
            )

        return self._change(job_id, ("queued", "submitted", "done"), change)

    def fail(self, job_id: str, error: ErrorInfo, *, bundle: str, now: datetime) -> Job | None:
        def change(job: Job) -> Job | None:
            failed = replace(job, state="failed", error=error, changed_at=now, finished_at=now)
            return failed if job.bundle == bundle else None

        return self._change(job_id, ("queued", "submitted", "failed"), change)

    def advance(
        self,
        job_id: str,
        stage: Stage,
        *,
        bundle: str,
        now: datetime,
        outcome: Outcome | None = None,
        candidates: Sequence[Candidate] | None = None,
        cost_usd: float | None = None,
    ) -> Job | None:
        def change(job: Job) -> Job | None:
            if job.bundle != bundle or job.stage not in (stage, PREVIOUS_STAGE[stage]):
                return None
            if outcome:
                job = replace(job, subject=outcome.subject, warnings=outcome.warnings, timings=outcome.timings)
            if candidates is not None:
                job = replace(job, candidates=tuple(candidates))
            if cost_usd is not None:
                job = replace(job, cost_usd=cost_usd)
            return replace(job, state="queued", stage=stage, attempts=0, changed_at=now)

        return self._change(job_id, ("queued", "submitted"), change)

    def retry(self, job: Job, *, now: datetime) -> Job | None:
        def change(known: Job) -> Job:
            known = replace(known, preset=job.preset, options=job.options, stage=job.stage, candidates=job.candidates)
            reset = replace(known, state="queued", bundle="", attempts=0, error=None, warnings=(), timings={})
            return replace(reset, changed_at=now, finished_at=None)

        return self._change(job.id, ("failed",), change)

    def review(self, job_id: str, review: Review) -> Job | None:
        return self._change(job_id, ("done",), lambda job: replace(job, review=review))

    def delete(self, job_id: str, *, state: State) -> bool:
        with self._database.transaction() as connection:
            row = connection.execute("SELECT state FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row and row[0] != state:
                return False
            connection.execute("DELETE FROM jobs WHERE id = ?", (job_id,))
        return True

    def get(self, job_id: str) -> Job | None:
        with self._database.reading() as connection:
            row = connection.execute("SELECT job FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return Job.from_json(json.loads(row[0])) if row else None

    def page(self, selection: Selection, *, before: str, limit: int) -> Page:
        conditions, values = ["1"], list[str]()
        for condition, value in (
            ("owner = ?", selection.owner),
            ("state = ?", selection.state),
            ("recency >= ?", iso(selection.since) if selection.since else None),
            ("recency < ?", iso(selection.until) if selection.until else None),
            ("recency < ?", before or None),
        ):
            if value is not None:
                conditions.append(condition)
                values.append(value)
        query = f"SELECT job FROM jobs WHERE {' AND '.join(conditions)} ORDER BY recency DESC"  # noqa: S608 - constants
        with self._database.reading() as connection:
            jobs = [Job.from_json(json.loads(row[0])) for row in connection.execute(query, values)]
        found = [job for job in jobs if job.source.key.startswith(selection.prefix)]
        return Page(found[:limit], found[limit - 1].recency if len(found) > limit else "")

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT job FROM jobs WHERE state = ? AND recency < ? ORDER BY recency LIMIT ?",
                (state, iso(since), limit),
            ).fetchall()
        return [Job.from_json(json.loads(row[0])) for row in rows]

    def delete_finished(self, before: datetime) -> None:
        """Deletes the records of jobs that finished earlier."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM jobs WHERE state IN ('done', 'failed') AND recency < ?", (iso(before),))

    def _change(self, job_id: str, states: tuple[State, ...], change: Change) -> Job | None:
        """Changes a job in one of `states`. Returns it; None where it does not exist or its condition fails."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT job FROM jobs WHERE id = ?", (job_id,)).fetchone()
            job = Job.from_json(json.loads(row[0])) if row else None
            changed = change(job) if job and job.state in states else None
            if changed:
                connection.execute("REPLACE INTO jobs VALUES (?, ?, ?, ?, ?)", _row(changed))
        return changed


def _row(job: Job) -> tuple[str, str, str, str, str]:
    return job.id, job.state, job.owner, job.recency, json.dumps(job.to_json())
