"""Images as arguments: paths, bytes, file objects, URLs, Pillow images and NumPy arrays."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import unquote, urlsplit

from maskdrop_client.errors import InvalidUsage


class PillowImage(Protocol):
    """A `PIL.Image.Image`. Pillow is optional."""

    @property
    def mode(self) -> str: ...

    def getbbox(self) -> Any: ...

    def save(self, fp: Any, format: str | None = None) -> None: ...  # noqa: A002  Pillow's name


class Array(Protocol):
    """A NumPy array of HxW or HxWx3 or HxWx4 uint8, RGB. It needs Pillow."""

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


ImageInput = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | PillowImage | Array
"""A path; a URL (https://…, which the server fetches); the bytes of a file; a file object in binary mode; a Pillow
image; a NumPy array; s3://bucket/key, which the server reads."""

URL = re.compile(r"https?://", re.IGNORECASE)
S3_URI = re.compile(r"s3://([^/]+)/(.+)", re.DOTALL)

NAME_MAX = 128
"""Maximum characters of the name of an upload."""

FORBIDDEN = re.compile(r"[/\\${}\x00-\x1f\x7f\ud800-\udfff]")
"""Characters that the name of an upload must not contain."""

SAVED_MODES = {"1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA"}
"""Modes of Pillow that PNG stores; others, such as CMYK, are converted to RGB."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image that is ready to be sent. content: its bytes, or a URL. name: of the file; "image" where it has none."""

    content: bytes | str
    name: str = "image"

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name


def load(image: ImageInput) -> LoadedImage:
    """Reads an image. Raises InvalidUsage for an argument that is not an image, and OSError for a file that cannot be
    read."""
    if isinstance(image, str) and (URL.match(image) or S3_URI.match(image)):
        name = unquote(urlsplit(image).path).rpartition("/")[2]
        return LoadedImage(image, name or "image")
    if isinstance(image, str | os.PathLike):
        path = Path(image)
        return _checked(path.read_bytes(), path.name)
    if isinstance(image, bytes | bytearray | memoryview):
        return _checked(bytes(image), "image")
    if hasattr(image, "read"):
        data = image.read()
        if not isinstance(data, bytes):
            raise InvalidUsage("The file object must be in binary mode; open it with open(path, 'rb').")
        file_name = getattr(image, "name", None)
        return _checked(data, Path(file_name).name if isinstance(file_name, str) else "image")
    if hasattr(image, "getbbox") and hasattr(image, "save"):
        return LoadedImage(_png(image), "image.png")
    if hasattr(image, "__array_interface__"):
        return LoadedImage(_png(pillow("Image").fromarray(image)), "image.png")
    raise InvalidUsage(
        "An image must be a path, a URL, bytes, a binary file object, a Pillow image or a NumPy array; got "
        f"{type(image).__name__}."
    )


def upload_name(name: str) -> str:
    """Returns the name of a file in the form that uploads accept."""
    kept = FORBIDDEN.sub("_", name)
    return "image" if kept in ("", ".", "..") else kept[-NAME_MAX:]


def pillow(module: str) -> Any:
    """Returns a module of Pillow. Raises InvalidUsage where Pillow is not installed."""
    try:
        return importlib.import_module(f"PIL.{module}")
    except ImportError as error:
        raise InvalidUsage("Pillow is not installed; run: pip install pillow") from error


def _checked(data: bytes, name: str) -> LoadedImage:
    if not data:
        raise InvalidUsage(f"The image {name!r} is empty: it has 0 bytes.")
    return LoadedImage(data, name)


def _png(image: Any) -> bytes:
    """Encodes a Pillow image without loss, in the orientation of its EXIF data."""
    upright = pillow("ImageOps").exif_transpose(image)
    if upright.mode not in SAVED_MODES:
        upright = upright.convert("RGB")
    buffer = BytesIO()
    upright.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
