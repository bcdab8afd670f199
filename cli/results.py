"""Reads photos and writes their results: into a folder, to one file, or to standard output."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from cli.batch import STDIN, SUFFIXES, Photo, check_results, is_done, is_image, photos_of
from cli.processing import Made
from cli.terminal import UsageError
from local.config import LocalError
from local.settling import Settling
from maskdrop.errors import SourceMissing
from maskdrop.job import item_key
from maskdrop.output import Format
from sagemaker_model.weights.files import atomic_write

RESULTS = Path("results")

FORMATS = {f".{name}": name for name in (*get_args(Format), "json")} | {".jpeg": "jpg"}
"""Suffix of a file with a result -> its format."""

WATCH_MS = 300
"""Interval between two checks of watched folders, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """The place of the results: a folder, one file, or standard output. All empty: no result is written."""

    folder: Path | None = None
    file: Path | None = None
    stdout: bool = False

    @classmethod
    def of(cls, inputs: Sequence[Path], out: Path | None, default: Path | None = RESULTS) -> Target:
        """inputs: files, folders or STDIN. default: folder without --out; None: no result is written, except to `out`.

        Raises UsageError for an `out` that does not fit the inputs.
        """
        one = len(inputs) == 1 and not inputs[0].is_dir()
        if out is None:
            to_stdout = default is not None and list(inputs) == [STDIN]
            return cls(stdout=True) if to_stdout else cls(folder=default)
        if out != STDIN and (out.is_dir() or out.suffix.lower() not in FORMATS):
            if not out.is_dir() and (out.exists() or out.suffix.lower() in SUFFIXES):
                raise UsageError(
                    f"--out must be a folder, a file with one of the suffixes {', '.join(FORMATS)}, or -; got {out}."
                )
            return cls(folder=out)
        if not one:
            raise UsageError(f"--out must be a folder for several photos; got {out}.")
        if out == STDIN:
            return cls(stdout=True)
        if out.exists() and inputs[0] != STDIN and out.samefile(inputs[0]):
            raise UsageError(f"--out must not be the photo itself; got {out}.")
        return cls(file=out)

    def output(self, fields: Sequence[str]) -> list[str]:
        """Returns output options FIELD=VALUE with the format of the suffix of `file`, unless they have a format."""
        if self.file is None or any(field.startswith("format=") for field in fields):
            return [*fields]
        return [*fields, f"format={FORMATS[self.file.suffix.lower()]}"]

    def path(self, photo: Photo, extension: str) -> Path | None:
        """Returns the path of the main result of a photo; None for standard output and for none."""
        if self.folder is None:
            return self.file
        return self.folder / photo.name.with_name(f"{photo.name.name}.{extension}")


@dataclass(frozen=True, slots=True)
class Work:
    """The photos of a command, and the paths of their results.

    pending: the photos that a run processes: all of them, without those that are skipped.
    """

    photos: list[Photo]
    target: Target
    extension: str
    overwrite: bool = False

    @classmethod
    def of(
        cls, inputs: Sequence[Path], target: Target, extension: str, *, overwrite: bool = False, empty: bool = False
    ) -> Work:
        """empty: whether folders may have no image yet.

        Raises UsageError for folders without images, and for results that would replace each other or a photo.
        """
        photos = photos_of(inputs, target.folder)
        if not photos and not empty:
            raise UsageError(f"{', '.join(map(str, inputs))} has no images.")
        work = cls(photos, target, extension, overwrite)
        if target.folder:
            check_out([photo.path for photo in photos], target.folder)
        work.check()
        return work

    def check(self) -> None:
        """Raises UsageError for results that would replace each other."""
        if self.target.folder:
            check_results(self.photos, lambda photo: self.result(photo) or photo.path)

    @property
    def pending(self) -> list[Photo]:
        return [photo for photo in self.photos if not self.is_done(photo)]

    def result(self, photo: Photo) -> Path | None:
        return self.target.path(photo, self.extension)

    def is_done(self, photo: Photo) -> bool:
        """Whether a photo is skipped. One photo that the command line names is always processed."""
        result = self.result(photo)
        several = len(self.photos) > 1 or not photo.listed
        return bool(result and several and not self.overwrite and is_done(photo, result))


def watched(folders: Sequence[Path], work: Work) -> Iterator[list[Photo]]:
    """Yields the new and changed images below folders, once another program has finished writing them.

    Yields [] at least every WATCH_MS milliseconds. Raises KeyboardInterrupt on SIGINT.
    """
    from watchfiles import Change, watch  # takes 50 ms, which the other commands save

    out, settling, scanned = work.target.folder, Settling(), False
    known = {photo.path for photo in work.photos}
    for changes in watch(*folders, rust_timeout=WATCH_MS, yield_on_timeout=True):
        if not scanned:  # after the watch has begun, so that no file is missed
            scanned = True
            for photo in photos_of(folders, out):
                if photo.path not in known:
                    settling.add(photo.path)
        for change, name in changes:
            path = Path(name)
            if change is not Change.deleted and not (out and path.is_relative_to(out.resolve())):
                settling.add(path)
        ready = []
        for path in settling.settled():
            settling.remove(path)
            if is_image(path):
                folder = next(one for one in folders if path.resolve().is_relative_to(one.resolve()))
                ready.append(Photo(path, path.resolve().relative_to(folder.resolve()), listed=False))
        yield ready


def read_photo(photo: Photo) -> bytes:
    """Raises SourceMissing for a file that cannot be read."""
    return sys.stdin.buffer.read() if photo.path == STDIN else read_file(photo.path)


def write_stdout(data: bytes) -> None:
    """Writes a result to standard output. Raises LocalError."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except OSError as error:
        with suppress(OSError):
            sys.stdout.close()  # else the interpreter writes the rest when it ends, which fails once more
        raise LocalError(f"Standard output cannot be written: {error.strerror}.") from error


def read_file(path: Path) -> bytes:
    """Raises SourceMissing for a file that cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceMissing(f"{path} cannot be read: {error.strerror}.") from error


def write_results(made: Made, result: Path) -> list[Path]:
    """Writes the results of one photo; the numbered ones into a folder, as in S3, and the main one last: its existence
    means that the photo is done. Returns their paths, the main one first. Raises LocalError."""
    parts = {Path(item_key(str(result), number)): part.data for number, part in enumerate(made.cutout.parts, 1)}
    for path, data in {**parts, result: made.cutout.data}.items():
        write_file(path, data)
    return [result, *parts]


def write_file(path: Path, data: bytes) -> None:
    """Writes a file and its folders. An interrupted write leaves no file under this name. Raises LocalError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.exists():
            return  # another run over the same folder has renamed the file
        raise LocalError(f"{path} cannot be written: {error.strerror}. Use another --out.") from error


def check_out(photos: Sequence[Path], out: Path) -> None:
    """Raises UsageError for an `out` in which numbered results would replace a photo."""
    for photo in photos:
        if photo != STDIN and photo.parent.resolve() == out.resolve():
            raise UsageError(
                f"--out must not be the folder of {photo}: its folder of numbered results has the name of the photo."
            )
