"""Requests to remove.bg's API, recorded from its published samples: the bytes that each HTTP client sends.

`python -m tests.recorded PORT NAME` records one more. The samples send a PNG of 95 bytes with the key "the-key", or an
image URL; the programs are those of the vendor's API page, for the versions in docs/vendors.md. The version of .NET is
Mono's, whose System.Net.Http is .NET's.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
KEY = "the-key"
IMAGE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAJklEQVR42mPQQAMMZAv8BwEkgf//4SIMSHywCNUEMGzBdAdJfgEAA4th9BHJGIAA"
    "AAAASUVORK5CYII="
)
IMAGE_URL = "https://example.com/a.jpg"

NAMES = sorted(path.stem for path in FOLDER.glob("*.http"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded request. headers: in the order and case of the client. body: without chunks."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    chunked: bool

    def header(self, name: str) -> str | None:
        return next((value for found, value in self.headers if found.lower() == name.lower()), None)

    def to(self, host: str, *, prefix: str = "", key: str = KEY, image: bytes = IMAGE) -> bytes:
        """Returns the bytes for a server at host:port, whose paths begin with `prefix`, with another key and image.

        Only the lengths change besides."""
        body = self.body.replace(IMAGE, image).replace(base64.b64encode(IMAGE), base64.b64encode(image))
        body = body.replace(b"Content-Length: %d\r\n" % len(IMAGE), b"Content-Length: %d\r\n" % len(image))
        changed = {"host": host, "x-api-key": key, "content-length": str(len(body))}
        lines = [f"{self.method} {prefix}{self.path} HTTP/1.1"]
        lines += [f"{name}: {changed.get(name.lower(), value)}" for name, value in self.headers]
        sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if self.chunked else body
        return "\r\n".join([*lines, "", ""]).encode() + sent


def recorded(name: str) -> Recorded:
    head, _, body = (FOLDER / f"{name}.http").read_bytes().partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    chunked = any(name.lower() == "transfer-encoding" for name, _ in headers)
    return Recorded(method, path, headers, _without_chunks(body) if chunked else body, chunked)


def _without_chunks(body: bytes) -> bytes:
    parts = b""
    while found := re.match(rb"([0-9A-Fa-f]+)\r\n", body):
        size, start = int(found[1], 16), found.end()
        parts += body[start : start + size]
        body = body[start + size + 2 :]
    return parts
