"""One file over HTTP, continued where it broke off. Proxies are those of the environment (HTTPS_PROXY, NO_PROXY)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from maskdrop.errors import Unavailable

if TYPE_CHECKING:
    import httpx2

TIMEOUT_S = 30.0
"""Without a byte, in seconds."""

Progress = Callable[[int], None]
"""Called with the number of bytes there are, now and then."""


class DownloadFailed(Unavailable):
    code = "download_failed"


def quiet(_done: int) -> None:
    """The progress of one that nobody watches."""


def download(url: str, part: Path, *, size: int | None = None, progress: Progress = quiet) -> None:
    """Completes the file `part`, which may hold the beginning from an earlier time, and beside which `.etag` says of
    which version. A broken connection is taken up again for as long as every attempt brings more.

    size: of the whole file, in bytes, where it is known: a longer one is left at the first part too many.
    Raises DownloadFailed; what was fetched stays, for the next time. Raises OSError where the disk fails.
    """
    import httpx2  # here: the container does without it

    def fetch(client: httpx2.Client) -> str | None:
        """Why it is not complete; None when it is."""
        try:
            _append(client, url, part, size, progress)
        except httpx2.TransportError as error:
            return str(error) or type(error).__name__
        return "the answer ended too early" if size is not None and _length(part) < size else None

    try:
        with httpx2.Client(follow_redirects=True, timeout=TIMEOUT_S) as client:
            while size is None or _length(part) != size:
                had = _length(part)
                reason = fetch(client)
                if reason is None:
                    return
                if _length(part) <= had:
                    raise DownloadFailed(f"{url} cannot be fetched: {reason}.")
    except httpx2.HTTPStatusError as error:
        answer = error.response
        raise DownloadFailed(
            f"{url} cannot be fetched: it answers {answer.status_code} {answer.reason_phrase}."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DownloadFailed(f"{url} cannot be fetched: {error}.") from error


def discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


def _append(client: httpx2.Client, url: str, part: Path, size: int | None, progress: Progress) -> None:
    """One request: for the rest, if the file is still the one whose beginning is there; else for all of it."""
    etag = _etag_file(part).read_text() if _etag_file(part).exists() else ""
    have = _length(part) if etag else 0
    headers = {"Accept-Encoding": "identity"}  # a range of a packed file is of no use
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag}
    with client.stream("GET", url, headers=headers) as answer:
        if have and answer.status_code == 416:  # nothing follows: what is there is no beginning of this file
            discard(part)
            return _append(client, url, part, size, progress)
        answer.raise_for_status()
        with part.open("ab" if have and answer.status_code == 206 else "wb") as file:
            if file.tell() == 0:
                _etag_file(part).write_text(_validator(answer))
            for chunk in answer.iter_raw():  # as it comes: what is collected first is lost when it breaks
                file.write(chunk)
                progress(file.tell())
                if size is not None and file.tell() > size:
                    break
    if size is not None and _length(part) > size:
        discard(part)
        raise DownloadFailed(f"{url} is not the file looked for: it is longer than {size:,} bytes.")
    return None


def _validator(answer: httpx2.Response) -> str:
    """What If-Range takes: a strong ETag, else the date; "" when there is neither (RFC 9110, section 13.1.5)."""
    etag = str(answer.headers.get("etag", ""))
    return etag if etag and not etag.startswith("W/") else str(answer.headers.get("last-modified", ""))


def _length(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")
