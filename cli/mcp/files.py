"""The files that tools may read and write, and the preview of a result.

A language model chooses the paths, so that a path outside the allowed folders is refused, and no file is replaced.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import count
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image

from maskdrop.errors import EmptyFile, FileTooLarge, InputError, SourceMissing
from maskdrop.limits import IMAGE_BYTES_MAX

PREVIEW_SIDE = 512
"""Longest side of a preview in pixels: hosts count an image of 512 x 512 as about 350 tokens of a model's input."""

PREVIEW_BYTES_MAX = 120_000
"""Maximum size of a preview in bytes. A JPEG of 512 x 512 pixels of noise has 150 kB at quality 80, 80 kB at 50."""

CHECKER, LIGHT, DARK = 16, 255, 214
"""Side of a square in pixels, and the greys, of the pattern behind transparent parts of a preview."""


class PathNotAllowed(InputError):
    """The path is outside the folders that the server may use."""

    code = "path_not_allowed"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that was read. path: without symbolic links."""

    path: Path
    data: bytes


@dataclass(frozen=True, slots=True)
class Files:
    """Access to the files below some folders.

    roots: folders whose files may be read and written, without symbolic links. out: folder for results; None: that of
    the source.
    """

    roots: tuple[Path, ...]
    out: Path | None = None

    @classmethod
    def of(cls, roots: Sequence[Path], out: Path | None) -> Files:
        """Resolves the folders. Raises SourceMissing for a root that is not a folder."""
        for root in roots:
            if not root.is_dir():
                raise SourceMissing(f"--root must be a folder; got {root}.")
        return cls(tuple(root.resolve() for root in roots), out.resolve() if out else None)

    def read(self, text: str) -> SourceFile:
        """Reads a file. text: a path, relative to the first root or absolute, or a file:// URL.

        Raises PathNotAllowed, SourceMissing, EmptyFile, FileTooLarge.
        """
        path = self._allowed(text)
        try:
            # O_NONBLOCK: opening a named pipe does not wait for a writer. O_NOFOLLOW: the path has no links any more.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise SourceMissing(f"{text} is not a file.")
                _check_size(status.st_size)
                data = file.read(IMAGE_BYTES_MAX + 1)
        except OSError as error:
            raise SourceMissing(f"{text} cannot be read: {error.strerror}.") from error
        _check_size(len(data))
        return SourceFile(path, data)

    def folder(self, source: Path | None, out: str | None) -> Path:
        """Returns the folder for the results of one image, before it is processed.

        source: the image; None for that of a URL. out: chosen by the caller of a tool; None: the default. Raises
        PathNotAllowed.
        """
        if out is not None:
            return self._allowed(out)
        return self.out or (source.parent if source else self.roots[0])

    def write(self, folder: Path, stem: str, suffix: str, data: bytes) -> Path:
        """Writes a new file and returns its path. Where the name is taken, a number is added to it.

        Raises PathNotAllowed for a folder that cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number in count(1):
                path = folder / f"{stem}{'' if number == 1 else f'-{number}'}{suffix}"
                try:
                    with path.open("xb") as file:
                        file.write(data)
                except FileExistsError:
                    continue
                return path
        except OSError as error:
            raise PathNotAllowed(f"{folder} cannot be written: {error.strerror}. Use another folder.") from error
        raise AssertionError  # count() does not end

    def _allowed(self, text: str) -> Path:
        """Returns the path without symbolic links. Raises PathNotAllowed."""
        if "\0" in text:
            raise PathNotAllowed("A path must not contain a null character.")
        if text.startswith("file://"):
            parts = urlsplit(text)
            if parts.netloc not in ("", "localhost"):
                raise PathNotAllowed(f"A file:// URL must name no host; got {parts.netloc!r:.80}.")
            text = unquote(parts.path)
        path = (self.roots[0] / Path(text).expanduser()).resolve()
        if not any(path.is_relative_to(root) for root in (*self.roots, *([self.out] if self.out else []))):
            allowed = ", ".join(map(str, self.roots))
            raise PathNotAllowed(f"{text} is outside the allowed folders: {allowed}. Add others by --root.")
        return path


def preview_of(data: bytes) -> bytes | None:
    """Returns a JPEG of at most PREVIEW_SIDE pixels and PREVIEW_BYTES_MAX bytes, with a pattern of squares behind
    transparent parts. None for a file that is not an image, such as a ZIP."""
    try:
        with Image.open(BytesIO(data)) as opened:
            opened.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            image = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    squares = Image.new("L", (-(-image.width // CHECKER), -(-image.height // CHECKER)))
    squares.putdata(
        [LIGHT if (i % squares.width + i // squares.width) % 2 else DARK for i in range(squares.width * squares.height)]
    )
    pattern = squares.resize((squares.width * CHECKER, squares.height * CHECKER), Image.Resampling.NEAREST)
    canvas = pattern.crop((0, 0, *image.size)).convert("RGBA")
    flat = Image.alpha_composite(canvas, image).convert("RGB")
    for quality in (80, 50, 20):
        buffer = BytesIO()
        flat.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= PREVIEW_BYTES_MAX:
            return buffer.getvalue()
    return None


def _check_size(size: int) -> None:
    if size == 0:
        raise EmptyFile("The file is empty: it has 0 bytes.")
    if size > IMAGE_BYTES_MAX:
        raise FileTooLarge(f"The file has {size:,} bytes; at most {IMAGE_BYTES_MAX:,} are accepted.")
