"""Process photos with a deployed or local stack: submit jobs, read their state, download their results.

A file of jobs, one JSON object a line, records every submitted photo: an interrupted run is continued, and `fetch` and
`retry` need no ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from cli.batch import FAILURES_CSV, Batch, Failures, Photo, Record, photos_of
from cli.options import EngineFlag, OutputFlag, RefineFlag, output_of
from cli.profiles import ProfileFlag, client_of
from cli.terminal import FAILED, UsageError, console, messages, print_errors
from maskdrop.errors import ErrorInfo
from maskdrop.job import item_key
from maskdrop_client import (
    AuthenticationFailed,
    ClientError,
    ConnectionFailed,
    Job,
    JobFailed,
    Maskdrop,
    ResultItem,
    StoredFile,
)
from sagemaker_model.weights.files import atomic_write

JOBS = Path("maskdrop-jobs.jsonl")

WAIT_S = 1200.0
"""Default wait of `fetch` for a job, in seconds: a GPU instance takes 5 to 10 minutes to start."""

State = Literal["queued", "submitted", "done", "failed"]

JobsFile = Annotated[Path, typer.Option("--jobs", dir_okay=False, help="File that records the submitted photos.")]
Json = Annotated[bool, typer.Option("--json", help="Print one line of JSON for each photo or job.")]
Connections = Annotated[int, typer.Option("--workers", min=1, max=64, help="Requests in progress at the same time.")]
JobIds = Annotated[
    list[str] | None, typer.Argument(metavar="JOB", help="Ids of jobs (default: those of the file of jobs).")
]


@dataclass
class Submitted:
    """The file of jobs. rows: by the key of a photo. Thread-safe."""

    path: Path
    rows: dict[str, dict[str, str]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def read(cls, path: Path) -> Submitted:
        """Reads a file, which need not exist. Ignores a last line that a killed run left incomplete."""
        jobs = cls(path)
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="surrogateescape").split("\n"):
                try:
                    row = json.loads(line)
                    jobs.rows[row["key"]] = row
                except (ValueError, KeyError, TypeError):
                    continue
        return jobs

    def add(self, key: str, photo: Photo, job_id: str) -> None:
        row = {"key": key, "photo": str(photo.path), "name": str(photo.name), "job": job_id}
        with self._lock:
            self.rows[key] = row
            with self.path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def photo(self, job_id: str) -> Photo:
        """Returns the photo of a job; for an unknown job, one with the name of its id."""
        for row in self.rows.values():
            if row["job"] == job_id:
                return Photo(Path(row["photo"]), Path(row["name"]))
        return Photo(Path(job_id), Path(job_id))

    def ids(self, given: Sequence[str] | None) -> list[str]:
        """Returns the given ids, else those of the file. Raises UsageError without any."""
        ids = [*(given or ())] or [row["job"] for row in self.rows.values()]
        if not ids:
            raise UsageError(f"{self.path} has no jobs: name the ids of jobs, or submit photos.")
        return list(dict.fromkeys(ids))


def submit(
    photos: Annotated[
        list[Path],
        typer.Argument(metavar="PHOTO", help="Image files, and folders with their subfolders.", show_default=False),
    ],
    preset: Annotated[str | None, typer.Option(help="Preset.", show_default="default")] = None,
    task: Annotated[
        Literal["cutout", "mask", "detect", "replace"] | None, typer.Option(help="Task.", show_default="cutout")
    ] = None,
    engine: EngineFlag = None,
    refine: RefineFlag = None,
    output: OutputFlag = None,
    prompt: Annotated[str | None, typer.Option(metavar="JSON", help="Prompts as JSON (default: none).")] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that receives each result (default: none).")] = None,
    workers: Connections = 8,
    jobs: JobsFile = JOBS,
    profile: ProfileFlag = None,
    as_json: Json = False,
) -> None:
    """Upload photos and create a job for each. Repeated after an interruption, it skips those that have a job. Exits 1
    if a photo fails."""
    with print_errors():
        try:
            prompts = json.loads(prompt) if prompt else None
        except ValueError as error:
            raise UsageError(f"--prompt must be JSON; got {prompt!r:.80}.") from error
        chosen = {"preset": preset, "task": task, "engine": engine, "refine": refine, "prompt": prompts}
        chosen |= {"output": output_of(output or ()) or None, "webhook": webhook}
        options = {name: value for name, value in chosen.items() if value is not None}
        found, submitted = photos_of(photos, None), Submitted.read(jobs)
        with client_of(profile, workers) as client:

            def process(photo: Photo) -> Record:
                def run() -> Record:
                    job = client.submit(photo.path, **options)  # type: ignore[arg-type]
                    submitted.add(_key(photo, client, options), photo, job.id)
                    return {"job": job.id, "state": "submitted"}

                return _record(photo, run)

            def skip(photo: Photo) -> Record | None:
                row = submitted.rows.get(_key(photo, client, options))
                return {**_record(photo, dict), "state": "skipped", "job": row["job"]} if row else None

            _batch(process, workers, None, skip=skip, done="submitted", skipped="they have a job", as_json=as_json).run(
                found
            )


def fetch(
    ids: JobIds = None,
    out: Annotated[Path, typer.Option("--out", "-o", file_okay=False, help="Folder for the results.")] = Path(
        "results"
    ),
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for an unfinished job.")] = WAIT_S,
    workers: Connections = 8,
    jobs: JobsFile = JOBS,
    profile: ProfileFlag = None,
    as_json: Json = False,
) -> None:
    """Download the results of jobs, and wait for unfinished ones. Skips results that are there. Exits 1 if a job failed
    or did not finish."""
    with print_errors(), client_of(profile, workers) as client:
        submitted = Submitted.read(jobs)
        ids_of = {submitted.photo(job_id).name: job_id for job_id in submitted.ids(ids)}
        photos = [Photo(submitted.photo(job_id).path, name) for name, job_id in ids_of.items()]

        def process(photo: Photo) -> Record:
            return _record(photo, lambda: _download(client, ids_of[photo.name], out, photo.name, wait))

        _batch(process, workers, out / FAILURES_CSV, as_json=as_json).run(photos)


def status(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="JOB", help="Ids of jobs (default: the local stack).")
    ] = None,
    stage: Annotated[
        str | None, typer.Option(help="Stage in your AWS account: its jobs, queues, endpoints and alarms.")
    ] = None,
    jobs: JobsFile = JOBS,
    profile: ProfileFlag = None,
    as_json: Json = False,
) -> None:
    """Print the state of jobs, of a stage, or of the local stack. Exits 1 if a job failed, an alarm is raised, or no
    stack is running."""
    if stage:
        from cli.stage_status import print_status

        with print_errors():
            if ids:
                raise UsageError("JOB and --stage exclude each other: jobs are read by the API (--profile).")
        print_status(stage, as_json=as_json)
        return
    if not ids:
        from cli import stack

        stack.status()
        return
    with print_errors(), client_of(profile) as client:
        submitted = Submitted.read(jobs)
        found = [client.job(job_id) for job_id in ids]
        for job in found:
            _print_job(job, str(submitted.photo(job.id).path), as_json=as_json)
    if any(job.state == "failed" for job in found):
        raise typer.Exit(FAILED)


def list_(
    state: Annotated[State | None, typer.Option(help="Only jobs in this state.", show_default="any")] = None,
    prefix: Annotated[str | None, typer.Option(help="Only sources with this key prefix (default: any).")] = None,
    since: Annotated[datetime | None, typer.Option(help="Only jobs changed at or after this time (UTC).")] = None,
    until: Annotated[datetime | None, typer.Option(help="Only jobs changed before this time (UTC).")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs.")] = 50,
    profile: ProfileFlag = None,
    as_json: Json = False,
) -> None:
    """List jobs, the most recently changed first."""
    with print_errors(), client_of(profile) as client:
        found: Iterable[Job] = client.all_jobs(state=state, prefix=prefix, since=_utc(since), until=_utc(until))
        for job, _ in zip(found, range(limit), strict=False):
            _print_job(job, job.source.key, as_json=as_json)


def retry(ids: JobIds = None, jobs: JobsFile = JOBS, profile: ProfileFlag = None, as_json: Json = False) -> None:
    """Retry failed jobs; without JOB, the failed ones of the file of jobs. Exits 1 if a job cannot be retried. For all
    failed jobs of a stage: redrive."""
    with print_errors(), client_of(profile) as client:
        submitted, refused = Submitted.read(jobs), 0
        for job_id in submitted.ids(ids):
            if not ids and client.job(job_id).state != "failed":
                continue
            try:
                _print_job(client.retry(job_id), str(submitted.photo(job_id).path), as_json=as_json)
            except (ConnectionFailed, AuthenticationFailed):
                raise
            except ClientError as error:
                refused += 1
                messages.print(f"[red]{job_id}  {escape(str(error))}[/red]", soft_wrap=True)
    if refused:
        raise typer.Exit(FAILED)


def _key(photo: Photo, client: Maskdrop, options: dict[str, Any]) -> str:
    """Returns the identity of a submission: the API, the file in its present version, and the options."""
    try:
        file = photo.path.stat()
        version = [str(photo.path.resolve()), file.st_size, file.st_mtime_ns]
    except OSError:
        version = [str(photo.path)]
    text = json.dumps([repr(client), version, options], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _record(photo: Photo, run: Any) -> Record:
    """Returns the record of a photo. An API that does not respond, or refuses the key, ends the whole command."""
    record: Record = {"photo": str(photo.path), "state": "done", "error": None}
    try:
        return {**record, **run()}
    except (ConnectionFailed, AuthenticationFailed):
        raise
    except ClientError as error:
        failed = error.job.error if isinstance(error, JobFailed) else None
        info = ErrorInfo(error.code, failed.message if failed else str(error), error.retryable)
    except OSError as error:
        info = ErrorInfo("source_missing", f"{photo.path}: {error.strerror}", False)
    return {**record, "state": "failed", "error": info.to_json()}


def _download(client: Maskdrop, job_id: str, out: Path, name: Path, wait_s: float) -> Record:
    job = client.job(job_id)
    if not job.finished:
        job = client.wait(job, wait_s=wait_s)
    elif job.state == "failed":
        job = client.wait(job)  # raises JobFailed
    if job.result is None:
        raise ValueError(f"The job {job_id} is done and has no result.")
    main = out / name.with_name(f"{name.name}.{job.result.format}")
    record = {"job": job_id, "result": {"path": str(main)}, "warnings": list(job.warnings)}
    if main.exists() and main.stat().st_size == job.result.bytes:
        return {**record, "state": "skipped"}
    for number, item in enumerate(job.results, 1):
        _write(Path(item_key(str(main), number)), client, item)
    _write(main, client, job.result)  # last: its existence means that the job was fetched
    return record


def _write(path: Path, client: Maskdrop, file: StoredFile | ResultItem) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_bytes(client.download(file))


def _batch(process: Any, workers: int, failures: Path | None, *, as_json: bool, **more: Any) -> Batch:
    def show(record: Record) -> None:
        if as_json:
            console.print(json.dumps(record, ensure_ascii=False), markup=False, soft_wrap=True)
        elif error := record["error"]:
            line = escape(f"failed  {record['photo']}  {error['code']}: {error['message']}")
            console.print(f"[red]{line}[/red]", soft_wrap=True)
        elif record["state"] != "skipped":
            result = record.get("result", {}).get("path", "")
            line = "  ".join(part for part in (f"{record['state']:7} {record['photo']}", record["job"], result) if part)
            console.print(escape(line), soft_wrap=True)
            for warning in record.get("warnings", ()):
                console.print(f"        [yellow]{escape(warning)}[/yellow]", soft_wrap=True)

    summary = messages if as_json else console
    return Batch(process, show, workers, Failures(failures), summary, summary, **more)


def _print_job(job: Job, photo: str, *, as_json: bool) -> None:
    error = job.error and {"code": job.error.code, "message": job.error.message}
    if as_json:
        record = {"job": job.id, "photo": photo, "state": job.state, "engine": job.engine, "error": error}
        console.print(json.dumps(record, ensure_ascii=False), markup=False, soft_wrap=True)
        return
    reason = f"  {error['code']}: {error['message']}" if error else ""
    line = f"{job.state:9} {job.id}  {job.changed_at:%Y-%m-%d %H:%M:%S}  {job.engine}  {photo}{reason}"
    console.print(escape(line), soft_wrap=True)


def _utc(moment: datetime | None) -> datetime | None:
    return moment and moment.replace(tzinfo=UTC)
