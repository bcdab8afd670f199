"""Start, stop and inspect the local stack."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Column, Table

from cli.terminal import console, print_errors
from local import processes, stack
from local.config import ROOT, LocalConfig, LocalError
from local.console import console_url
from local.images import ENDED, ImageClient
from local.stack import Stack
from local.watch import Watch

SAMPLES = ROOT / "samples"
PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".avif", ".jxl", ".tif", ".tiff", ".bmp", ".gif")

WAIT_S = 300.0
"""How long `run` waits for its samples, in seconds: about 10 images at 0.1 to 2 s, and one restart of the model."""

PROGRESS_S = 10.0
"""Seconds between two lines of a step, where the output is not a terminal."""

FOREGROUND = "foreground"
"""Name of the PID file of the command `run` or `up`, which `down` stops too."""

PROGRAMS = ("emulator", "sagemaker", "model")
"""Names of the PID files of the stack's programs."""


def run() -> None:
    """Process the photos of samples/ and print the results. Stops the stack if this command started it."""
    with _foreground() as config, _stack(config) as deployment:
        jobs = _process_photos(ImageClient(config, deployment), sorted(_photos(SAMPLES)))
        rows = _download_results(ImageClient(config, deployment), jobs, config.results)
    console.print(_table(rows))
    if any(job["state"] != "done" for _, job, _ in rows):
        raise typer.Exit(1)


def up() -> None:
    """Start the local stack and watch drop/ until Ctrl-C or `down`."""
    with _foreground() as config, _stack(config) as deployment:
        config.drop.mkdir(parents=True, exist_ok=True)  # before the text that names it
        console.print(_usage(config, deployment), soft_wrap=True)
        watch = Watch(config, ImageClient(config, deployment), partial(console.print, soft_wrap=True))
        try:
            for _ in watch.run():
                for name in ("emulator", "sagemaker"):
                    if processes.find(name, config.state) is None:
                        raise LocalError(f"The process {name} exited.\n{processes.tail(name, config.state)}")
        except KeyboardInterrupt:  # Ctrl-C is the normal way to stop `up`
            console.print(
                f"{escape(watch.summary())} Stopping; jobs, keys and presets are kept (`make reset` deletes them)."
            )


def down() -> None:
    """Stop the local stack that `up` or `run` started."""
    with print_errors():
        config = LocalConfig.of_running_stack(os.environ)
        if not any(processes.find(name, config.state) for name in (FOREGROUND, *PROGRAMS)):
            console.print("Nothing is running.")
            return
        with _step("Stopping the local stack"):
            processes.stop(FOREGROUND, config.state, grace_s=30)
            stack.down(config)


def reset() -> None:
    """Delete the jobs, images, API keys and presets of the stopped local stack. drop/ and results/ remain."""
    with print_errors():
        config = LocalConfig.from_env(os.environ)
        if any(processes.find(name, config.state) for name in PROGRAMS):
            raise LocalError("The local stack is running. Stop it with `make down`, then reset it.")
        stack.reset(config)
    console.print("The jobs, images, API keys and presets of the local stack are deleted.")


def status() -> None:
    """Print the running processes and stack.json. Exits 1 when no stack is running."""
    config = LocalConfig.from_env(os.environ)
    for name in (FOREGROUND, *PROGRAMS):
        process = processes.find(name, config.state)
        console.print(f"{name:10} {'pid ' + str(process.pid) if process else 'not running'}")
    deployment = stack.find(config)
    if deployment is None:
        raise typer.Exit(1)
    console.print_json(json.dumps(asdict(deployment)))


@contextmanager
def _foreground() -> Iterator[LocalConfig]:
    """Allows one foreground command per state folder. Ctrl-C and SIGTERM (sent by `down`) shut it down cleanly."""
    with print_errors():
        config = LocalConfig.from_env(os.environ)
        if other := processes.find(FOREGROUND, config.state):
            raise LocalError(f"`run` or `up` is already running (pid {other.pid}). Stop it with `make down`.")
        processes.write_pid_file(FOREGROUND, os.getpid(), config.state)
        signal.signal(signal.SIGTERM, _raise_keyboard_interrupt)
        try:
            yield config
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        finally:
            processes.remove_pid_file(FOREGROUND, config.state)


def _raise_keyboard_interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def _stack(config: LocalConfig) -> Iterator[Stack]:
    """Yields the running stack, or starts one and always stops it on exit."""
    started_here = stack.find(config) is None
    try:
        yield stack.up(config, _step)
    finally:
        if started_here:
            # Ignore a second Ctrl-C, which would leave part of the stack running.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            stack.down(config)


@contextmanager
def _step(description: str) -> Iterator[None]:
    """Prints the duration of a step. Until it ends, shows the elapsed time: on a terminal by a spinner, elsewhere by a
    line every PROGRESS_S seconds."""
    start, ended = time.monotonic(), threading.Event()

    def report() -> None:
        while not ended.wait(PROGRESS_S):
            console.print(f"{description}: {time.monotonic() - start:.0f} s", soft_wrap=True)

    if console.is_terminal:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True) as progress:
            progress.add_task(description, total=None)
            yield
    else:
        reporter = threading.Thread(target=report, daemon=True)
        reporter.start()
        try:
            yield
        finally:
            ended.set()
            reporter.join()
    console.print(f"{description:<42} {time.monotonic() - start:5.1f} s")


def _photos(folder: Path) -> list[Path]:
    photos = [path for path in folder.rglob("*") if path.suffix.lower() in PHOTOS]
    if not photos:
        raise LocalError(f"{folder} contains no photos; accepted are {', '.join(PHOTOS)}.")
    return photos


def _process_photos(client: ImageClient, photos: list[Path]) -> dict[Path, dict[str, Any] | None]:
    """Uploads the photos and waits up to WAIT_S seconds. Maps an unfinished photo to None."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("Processing", total=len(photos))
        ids = {photo: client.upload(photo.relative_to(SAMPLES).as_posix(), photo.read_bytes()) for photo in photos}
        ended: dict[Path, dict[str, Any] | None] = dict.fromkeys(photos)
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline and any(job is None for job in ended.values()):
            for photo in [photo for photo, job in ended.items() if job is None]:
                job = client.job(ids[photo])
                if job and job["state"] in ENDED:
                    ended[photo] = job
                    progress.advance(bar)
            time.sleep(0.1)
    return ended


def _download_results(
    client: ImageClient, jobs: dict[Path, dict[str, Any] | None], folder: Path
) -> list[tuple[Path, dict[str, Any], str]]:
    """Returns (photo, job, path of the result or the error message) for each photo."""
    rows = []
    for photo, job in jobs.items():
        if job is None:
            job = {"state": "late", "engine": ""}
            outcome = f"The job did not finish within {WAIT_S:.0f} s."
        elif job["state"] == "done":
            path = client.download(job, folder)
            outcome = str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
        else:
            outcome = f"{job['error']['code']}: {job['error']['message']}"
        rows.append((photo, job, outcome))
    return rows


def _table(rows: list[tuple[Path, dict[str, Any], str]]) -> Table:
    names = ("photo", "state", "engine", "size", "ms", "path")
    table = Table(*(Column(name, overflow="fold") for name in names))
    for photo, job, outcome in rows:
        result = job.get("result")
        size = f"{result['width']} x {result['height']}" if result else ""
        state = "[green]done[/green]" if job["state"] == "done" else f"[red]{job['state']}[/red]"
        table.add_row(escape(str(photo.relative_to(SAMPLES))), state, job["engine"], size, _ms(job), escape(outcome))
    return table


def _ms(job: dict[str, Any]) -> str:
    """Returns the time from creation to completion of the job, in milliseconds."""
    if not job.get("finished_at"):
        return ""
    duration = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["created_at"])
    return f"{duration.total_seconds() * 1000:.0f}"


def _usage(config: LocalConfig, deployment: Stack) -> str:
    trust = (
        f"\n  export AWS_CA_BUNDLE={deployment.ca_bundle} CURL_CA_BUNDLE={deployment.ca_bundle}"
        if deployment.ca_bundle
        else ""
    )
    return f"""
Drop photos into [bold]{escape(str(config.drop))}[/bold]; results are in [bold]{escape(str(config.results))}[/bold].
Web console: [bold]{console_url(config)}[/bold] with the API key {deployment.api_key}

From another shell:{trust}
  export AWS_ACCESS_KEY_ID={deployment.access_key_id} AWS_SECRET_ACCESS_KEY={deployment.secret_access_key}
  export AWS_REGION={deployment.region} AWS_DEFAULT_REGION={deployment.region}
  aws --endpoint-url {deployment.endpoint_url} s3 cp photo.jpg s3://{deployment.inbox}/inbox/default/
  aws --endpoint-url {deployment.endpoint_url} s3 ls --recursive s3://{deployment.results}/results/
  curl -H 'x-api-key: {deployment.api_key}' {deployment.api_url}/v1/jobs

Ctrl-C, or `make down` from another shell, stops everything.
"""
