"""The result of one image: its file, and the properties that the API returned with it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from maskdrop_client.errors import ClientError, InvalidUsage
from maskdrop_client.images import pillow
from maskdrop_client.models import Box, Job, ResultItem, Subject

SUFFIXES = {
    "image/png": (".png",),
    "image/webp": (".webp",),
    "image/avif": (".avif",),
    "image/jpeg": (".jpg", ".jpeg"),
    "application/zip": (".zip",),
    "application/json": (".json",),
}
"""Suffixes of files by content type; the first is added where a path has none."""

PREVIEW_SIDE = 1024
"""Longest side of the preview in a notebook, in pixels."""

PREVIEW_BYTES = 2_000_000
"""A larger PNG is scaled for the preview, where Pillow is installed: notebooks store each preview in their file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A finished image.

    data: the file, of `content_type`. width, height: in pixels. engine: that processed the image. subject: None where
    the API did not return one. place: box of the subject in the result, in pixels. timings: milliseconds by step.
    results: one for each instance or candidate; () where `data` is the only result. job: of a result that a job made.
    name: of the source, without its suffix.
    """

    data: bytes = field(repr=False)
    content_type: str
    width: int
    height: int
    engine: str = ""
    subject: Subject | None = None
    place: Box | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict, repr=False)
    results: tuple[ResultItem, ...] = field(default=(), repr=False)
    job: Job | None = field(default=None, repr=False)
    name: str = "image"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def suffix(self) -> str:
        """The suffix of the file, with a dot."""
        return SUFFIXES.get(self.content_type, (".bin",))[0]

    @property
    def needs_review(self) -> bool:
        """Whether a person should look at the result."""
        return bool(self.subject and self.subject.needs_review)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the file and returns its path. Folders are created; an existing file is replaced as a whole.

        path: a file, whose suffix may be absent; or a folder, which exists or ends with a slash: the file gets the name
        of the source.
        Raises InvalidUsage for a suffix of another format, and OSError.
        """
        target = Path(path)
        if target.is_dir() or os.fspath(path).endswith(("/", os.sep)):
            target = target / f"{self.name}{self.suffix}"
        suffixes = SUFFIXES.get(self.content_type, ())
        if not target.suffix:
            target = target.with_name(target.name + self.suffix)
        elif suffixes and target.suffix.lower() not in suffixes:
            raise InvalidUsage(
                f"The result is {self.content_type}; its file must end with {' or '.join(suffixes)}; got "
                f"{target.name!r}. Change the path, or request another format."
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{secrets.token_hex(8)}{target.suffix}")
        try:
            temporary.write_bytes(self.data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        return target

    def image(self) -> Any:
        """Returns the result as a `PIL.Image.Image`. Raises InvalidUsage without Pillow, or for a ZIP or JSON."""
        if not self.content_type.startswith("image/"):
            raise InvalidUsage(f"The result is {self.content_type}, not an image; use data or save().")
        return pillow("Image").open(BytesIO(self.data))

    def _repr_png_(self) -> bytes | None:
        """The preview in a notebook."""
        is_png = self.content_type == "image/png"
        if is_png and len(self.data) <= PREVIEW_BYTES:
            return self.data
        if not self.content_type.startswith("image/"):
            return None
        try:
            preview = self.image()
        except (ClientError, OSError):
            return self.data if is_png else None
        preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
        buffer = BytesIO()
        preview.save(buffer, format="PNG")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image of `map`. image: the argument. result: of the method; None where `error` is set."""

    image: Any
    result: Any = None
    error: Exception | None = None

    def unwrap(self) -> Any:
        """Returns the result. Raises the error."""
        if self.error:
            raise self.error
        return self.result
