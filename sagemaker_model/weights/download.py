"""Downloads a file over HTTP and resumes interrupted downloads.

Proxies are read from the environment (HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maskdrop.errors import Unavailable

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S = 30.0
"""Seconds to connect, or to wait for the next bytes."""

Progress = Callable[[int], None]
"""Callback that receives the number of bytes downloaded so far, after each chunk."""


class DownloadFailed(Unavailable):
    code = "download_failed"


def ignore_progress(_done: int) -> None:
    """Discards the progress."""


def download(url: str, part: Path, *, size: int | None = None, progress: Progress = ignore_progress) -> None:
    """Downloads `url` to the file `part`; resumes if `part` contains the beginning from an earlier call.

    `part`.etag stores the validator (ETag or date) of the version that was begun. A broken connection is retried as
    long as every attempt adds bytes.

    size: expected size of the file in bytes, if known; a longer response is aborted. Raises DownloadFailed, and keeps
    `part` for the next call. Raises OSError if the disk fails.
    """
    import httpx2  # imported here: the container does not install it

    def fetch(client: httpx2.Client) -> str | None:
        """Sends one request; returns the reason if the file is incomplete afterwards, else None."""
        try:
            _append(client, url, part, size, progress)
        except httpx2.TransportError as error:
            return str(error) or type(error).__name__
        return "the response is too short" if size is not None and _length(part) < size else None

    try:
        with httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
            while size is None or _length(part) != size:
                previous = _length(part)
                reason = fetch(client)
                if reason is None:
                    return
                if _length(part) <= previous:
                    raise DownloadFailed(f"{url} cannot be fetched: {reason}.")
    except httpx2.HTTPStatusError as error:
        response = error.response
        raise DownloadFailed(
            f"{url} cannot be fetched: the server returned {response.status_code} {response.reason_phrase}."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadFailed(f"{url} cannot be fetched: {error}.") from error


def discard(part: Path) -> None:
    """Deletes a partial download and its validator."""
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


def _append(client: httpx2.Client, url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Sends one request: for the rest of the file if it is unchanged on the server, else for all of it.

    Raises DownloadFailed if the file is longer than `size`.
    """
    etag = _etag_file(part).read_text() if _etag_file(part).exists() else ""
    start = _length(part) if etag else 0
    headers = {"Accept-Encoding": "identity"}  # a range of a compressed body could not be appended
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": etag}
    with client.stream("GET", url, headers=headers) as response:
        if start and response.status_code == 416:  # range not satisfiable: `part` is longer than the file
            discard(part)
            return _append(client, url, part, size, progress)
        response.raise_for_status()
        with part.open("ab" if start and response.status_code == 206 else "wb") as file:
            if file.tell() == 0:
                _etag_file(part).write_text(_validator(response))
            for chunk in response.iter_raw():  # unbuffered: a buffered chunk would be lost if the connection broke
                file.write(chunk)
                progress(file.tell())
                if size is not None and file.tell() > size:
                    break
    if size is not None and _length(part) > size:
        discard(part)
        raise DownloadFailed(f"{url} is not the expected file: it is longer than {size:,} bytes.")
    return None


def _validator(response: httpx2.Response) -> str:
    """The validator for If-Range: a strong ETag, else Last-Modified; "" without both (RFC 9110, section 13.1.5)."""
    etag = str(response.headers.get("etag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("last-modified", ""))


def _length(part: Path) -> int:
    """Size in bytes; 0 if the file does not exist."""
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")
