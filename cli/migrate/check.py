"""Checks that a URL speaks the protocol of remove.bg, by a real request of each kind."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import httpx2

from cli.migrate.rules import API_PATH
from cli.terminal import Unreachable
from maskdrop.errors import MaskdropError
from maskdrop.sniff import HEAD, image_type

ACCOUNT_PATH = "/v1.0/account"

RESPONSE_S = 60.0
"""Timeout of a response in seconds. API Gateway's is 29."""

ATTEMPTS = 6
"""Requests while the response is 503, which a starting endpoint returns."""

RETRY_S = 10.0
"""Longest wait between two of them, in seconds; the responses state theirs in Retry-After."""

PNG_FIELDS = slice(16, 26)
"""Width, height, bit depth and colour type in a PNG file (PNG specification, 11.2.2)."""

RGBA = 6
"""Colour type of a PNG file with colours and alpha."""


class CheckFailed(MaskdropError):
    """The URL does not respond as remove.bg did."""

    code = "check_failed"


def check(
    url: str, key: str, *, http: httpx2.Client | None = None, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """Requests a cut-out of a sample and the account. Yields a sentence for each response.

    url: without a slash at the end. key: ""; the requests have no key. Raises CheckFailed and Unreachable.
    """
    headers = {"X-Api-Key": key} if key else {}
    with http or httpx2.Client(timeout=RESPONSE_S, follow_redirects=True) as client:
        start = time.monotonic()
        response = _post(client, url + API_PATH, headers, sleep)
        seconds = time.monotonic() - start
        _expect(response, "image/png", key)
        if image_type(response.content[:HEAD]) != "image/png":
            raise CheckFailed(f"POST {url}{API_PATH}: the response is not a PNG file. Is this the URL of Maskdrop?")
        width, height, _, colours = struct.unpack(">IIBB", response.content[PNG_FIELDS])
        if colours != RGBA:
            raise CheckFailed(f"POST {url}{API_PATH}: the PNG file has no alpha channel.")
        kind = response.headers.get("X-Type", "unknown")
        yield (
            f"POST {url}{API_PATH}: 200, a PNG file of {width} x {height} pixels with alpha, type {kind}, "
            f"in {seconds:.1f} s."
        )
        response = _send(lambda: client.get(url + ACCOUNT_PATH, headers=headers), f"GET {url}{ACCOUNT_PATH}")
        _expect(response, "application/json", key)
        try:
            total = response.json()["data"]["attributes"]["credits"]["total"]
        except (ValueError, LookupError, TypeError) as error:
            raise CheckFailed(
                f"GET {url}{ACCOUNT_PATH}: the response lacks data.attributes.credits.total. "
                "Is this the URL of Maskdrop?"
            ) from error
        yield f"GET {url}{ACCOUNT_PATH}: 200, {total:,} credits."


def sample() -> bytes:
    """Returns the photo of the request: a person, a JPEG file of 10 KB, which the package contains."""
    return (files("sagemaker_model.engines") / "verification.jpg").read_bytes()


def _post(client: httpx2.Client, url: str, headers: dict[str, str], sleep: Callable[[float], None]) -> httpx2.Response:
    """Requests the cut-out, again while the endpoint starts."""
    image = {"image_file": ("sample.jpg", sample(), "image/jpeg")}
    data = {"size": "auto", "format": "png"}
    for attempt in range(ATTEMPTS):
        response = _send(lambda: client.post(url, headers=headers, files=image, data=data), f"POST {url}")
        if response.status_code != 503 or attempt == ATTEMPTS - 1:
            break
        wait = response.headers.get("Retry-After", "")
        sleep(min(float(wait) if wait.isdecimal() else RETRY_S, RETRY_S))
    return response


def _send(request: Callable[[], httpx2.Response], name: str) -> httpx2.Response:
    try:
        return request()
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unreachable(f"{name}: no response ({error or type(error).__name__}).") from error


def _expect(response: httpx2.Response, content_type: str, key: str) -> None:
    """Raises CheckFailed for another status or content type, with the vendor's form of errors where it has one."""
    request = f"{response.request.method} {response.request.url}"
    kind = response.headers.get("Content-Type", "").partition(";")[0]
    if response.status_code == 200 and kind == content_type:
        return
    if response.status_code == 403:
        remedy = "Check the key (`maskdrop keys list`)." if key else "Give a key of `maskdrop keys create` with --key."
        raise CheckFailed(f"{request}: 403, {_title(response)}. {remedy}")
    if response.status_code == 404:
        raise CheckFailed(f"{request}: 404. --url must be the base URL, without {API_PATH}.")
    raise CheckFailed(
        f"{request}: {response.status_code}, {kind or 'no content type'}, {_title(response)}; "
        f"expected 200, {content_type}."
    )


def _title(response: httpx2.Response) -> str:
    try:
        content: Any = response.json()
        return str(content["errors"][0]["title"]).rstrip(".")
    except (ValueError, LookupError, TypeError):
        return "without a message of remove.bg's form"
