"""Processes many images with worker threads: folders, images that are done, progress, Ctrl-C, failures, new files.

Threads instead of processes: the engine and its weights are loaded once, and decoding, networks and encoding release
the GIL. On two cores both process as many images a second; two processes took five seconds longer to start.

The results are the state of a run. A result appears under its name when it is complete, and its main file last, so that
an interrupted or killed run continues where it ended: images with a result are skipped.
"""

from __future__ import annotations

import csv
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.terminal import FAILED, INTERRUPTED, UsageError
from maskdrop.sniff import HEAD, image_type

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".avif", ".jxl", ".tif", ".tiff", ".bmp", ".gif")
"""Suffixes of image files. In folders, files with other suffixes are images if their first bytes are those of one."""

STDIN = Path("-")
"""The argument that stands for standard input, or as output for standard output."""

FAILURES_CSV = "failed.csv"

FAILURES_SHOWN = 10
"""Maximum number of failures in the summary. failed.csv has all of them."""

Record = dict[str, Any]
"""Outcome of one image: "photo", "state" (done, skipped or failed) and "error", an object with code and message."""


@dataclass(frozen=True, slots=True)
class Photo:
    """An image to process.

    name: its path relative to the folder of the command line, from which the path of its result is made.
    listed: whether the command line names the file itself.
    """

    path: Path
    name: Path
    listed: bool = True


def cores() -> int:
    """Returns the number of CPU cores that this process may use, the default number of workers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def photos_of(inputs: Sequence[Path], out: Path | None) -> list[Photo]:
    """Returns the images of files and folders; folders with all their subfolders, except `out` and hidden files.

    Raises UsageError for a URL.
    """
    photos = []
    for given in inputs:
        if str(given).lower().startswith(("http:/", "https:/")):
            raise UsageError(
                "A photo must be a file, a folder or -, not a URL; use `curl -L URL | maskdrop cutout - -o FILE`."
            )
        if given == STDIN:
            photos.append(Photo(STDIN, Path("stdin")))
        elif given.is_dir():
            photos += [Photo(path, path.relative_to(given), listed=False) for path in images_below(given, out)]
        else:
            photos.append(Photo(given, Path(given.name)))
    return photos


def images_below(folder: Path, out: Path | None) -> Iterator[Path]:
    """Yields the image files below a folder in the order of their names, except those below `out` and hidden ones."""
    excluded = out.resolve() if out else None
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            one for one in folders if not one.startswith(".") and Path(parent, one).resolve() != excluded
        )
        yield from (path for name in sorted(files) if is_image(path := Path(parent, name)))


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix or its first bytes. Hidden files are not: they may be incomplete."""
    if path.name.startswith(".") or not path.is_file():
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return image_type(file.read(HEAD)) is not None
    except OSError:
        return False


def check_results(photos: Iterable[Photo], result: Callable[[Photo], Path]) -> None:
    """Raises UsageError for images whose results would replace each other."""
    counts = Counter(result(photo) for photo in photos)
    repeated = [path for path, count in counts.items() if count > 1]
    if repeated:
        both = " and ".join(str(photo.path) for photo in photos if result(photo) == repeated[0])
        raise UsageError(f"Several photos have the result {repeated[0]}: {both}. Use one --out for each.")


def is_done(photo: Photo, result: Path) -> bool:
    """Whether a result exists that is not older than its image."""
    try:
        return result.stat().st_mtime >= photo.path.stat().st_mtime
    except OSError:
        return False


@dataclass
class Failures:
    """Writes failed.csv: one line for each image that failed, as it fails. Without failures the file is deleted.

    path: None for no file. problem: why the file cannot be written, a sentence; "" where it can.
    """

    path: Path | None
    records: list[Record] = field(default_factory=list)
    problem: str = ""

    def start(self) -> None:
        with self._usable() as path:
            if path:
                path.unlink(missing_ok=True)

    def add(self, record: Record) -> None:
        self.records.append(record)
        with self._usable() as path:
            if not path:
                return
            path.parent.mkdir(parents=True, exist_ok=True)
            new = not path.exists()
            with path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
                rows = csv.writer(file)
                if new:
                    rows.writerow(("photo", "code", "message"))
                rows.writerow((record["photo"], record["error"]["code"], record["error"]["message"]))

    @contextmanager
    def _usable(self) -> Iterator[Path | None]:
        """Yields the path, as long as the file can be written: a full disk must not end a run over thousands."""
        try:
            yield None if self.problem else self.path
        except OSError as error:
            self.problem = f"{self.path} cannot be written: {error.strerror}."


@dataclass
class Batch:
    """One run over images.

    process: processes one image in a worker thread and returns its record.
    show: prints a record, in the main thread.
    skip: returns the record of an image that is done, else None. skipped: the reason in the summary.
    done: the state of a processed image, in records and in the summary.
    progress: the console of the progress bar; no bar if it is no terminal. summary: the console of the summary.
    """

    process: Callable[[Photo], Record]
    show: Callable[[Record], None]
    workers: int
    failures: Failures
    progress: Console
    summary: Console
    skip: Callable[[Photo], Record | None] = lambda _: None
    done: str = "done"
    skipped: str = "their result exists"
    states: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False

    def run(self, photos: Sequence[Photo], arriving: Iterable[Sequence[Photo]] = ()) -> None:
        """Processes the images, then those of each step of `arriving`, prints a summary, and exits.

        Raises typer.Exit with the exit code: FAILED if an image failed; INTERRUPTED after SIGINT or SIGTERM. These
        start no other image and wait for those in work. A second SIGINT ends the process; no file is incomplete.
        """
        start = time.monotonic()
        self.failures.start()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        bar = Progress(*columns, console=self.progress, disable=not self.progress.is_terminal, transient=True)
        total = len(photos)
        with _interruptible(), bar, ThreadPoolExecutor(self.workers) as pool:
            shown = bar.add_task("Processing", total=total)
            try:
                self._all(photos, pool, lambda: bar.advance(shown))
                if arriving:
                    self.summary.print("Waiting for new photos; Ctrl-C ends.")
                for more in arriving:
                    total += len(more)
                    bar.update(shown, total=total)
                    self._all(more, pool, lambda: bar.advance(shown))
            except KeyboardInterrupt:
                self.interrupted = True
        self._summarize(total, time.monotonic() - start)
        if self.interrupted:
            raise typer.Exit(INTERRUPTED)
        if self.states["failed"]:
            raise typer.Exit(FAILED)

    def _all(self, photos: Iterable[Photo], pool: ThreadPoolExecutor, advance: Callable[[], object]) -> None:
        """Processes images, at most two for each worker in the queue, so that memory is bounded."""
        waiting: set[Future[Record]] = set()
        try:
            for photo in photos:
                if record := self.skip(photo):
                    self._end(record)
                    advance()
                    continue
                waiting.add(pool.submit(self.process, photo))
                if len(waiting) >= 2 * self.workers:
                    waiting -= self._ended(waiting, advance)
            while waiting:
                waiting -= self._ended(waiting, advance)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, _exit_now)
            kept = {future for future in waiting if not future.cancel()}
            if kept:
                self.summary.print("Completing the images in work; a second Ctrl-C ends at once.")
            while kept:
                kept -= self._ended(kept, advance)
            raise

    def _ended(self, waiting: set[Future[Record]], advance: Callable[[], object]) -> set[Future[Record]]:
        """Waits for an image, and shows those that ended."""
        ended = wait(waiting, return_when=FIRST_COMPLETED).done
        for future in ended:
            self._end(future.result())
            advance()
        return ended

    def _end(self, record: Record) -> None:
        self.states[record["state"]] += 1
        if record["state"] == "failed":
            self.failures.add(record)
        self.show(record)

    def _summarize(self, total: int, seconds: float) -> None:
        states, ended = self.states, self.states.total()
        if total < 2 and not self.interrupted:
            return
        parts = [f"{states[self.done]} {self.done}"]
        if states["skipped"]:
            parts.append(f"{states['skipped']} skipped, because {self.skipped}")
        if states["failed"]:
            parts.append(f"{states['failed']} failed")
        if ended < total:
            parts.append(f"{total - ended} not processed")
        rate = f", {states[self.done] / seconds:.1f} images/s" if states[self.done] > 1 else ""
        self.summary.print(f"{', '.join(parts)}; {seconds:.1f} s{rate}.", soft_wrap=True)
        for record in self.failures.records[:FAILURES_SHOWN]:
            error = record["error"]
            line = f"  {record['photo']}  {error['code']}: {error['message']}"
            self.summary.print(f"[red]{escape(line)}[/red]", soft_wrap=True)
        if self.failures.problem:
            self.summary.print(f"[red]{escape(self.failures.problem)}[/red]", soft_wrap=True)
        elif self.failures.records and self.failures.path:
            self.summary.print(f"All failures: {escape(str(self.failures.path))}", soft_wrap=True)
        if self.interrupted:
            self.summary.print("Interrupted. Repeat the command to continue.")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM interrupts as SIGINT does. The handlers of before are restored at the end."""
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _exit_now(_signal: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)
