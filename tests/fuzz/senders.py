"""The ways in which an image file reaches Maskdrop, and what a response or a job must be for any file.

A file ends in a result, or in one of the error codes of `maskdrop.errors`, with a status that blames the file. A status
of 5xx, no response within TIMEOUT_S and a job that does not end are faults; 429 and 503 with Retry-After are repeated.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx2

from maskdrop.errors import error_kinds

TIMEOUT_S = 120
"""Seconds for one response. The decoder of a file has 8 s of CPU."""

REPEATS = 20
"""Attempts of a request that gets 429 or 503 with Retry-After."""


class Fault(AssertionError):
    """What happened must not happen for any file."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """status: that of HTTP. code: of the error, in the words of the way's API; "" for a result."""

    status: int
    code: str


Send = Callable[[httpx2.Client, str, bytes, str], httpx2.Response]
"""Sends the file `data` named `name`, with an engine: (client, name, data, engine)."""


def _cutouts(client: httpx2.Client, name: str, data: bytes, engine: str) -> httpx2.Response:
    return client.post("/v1/cutouts", files={"image": (name, data)}, data={"engine": engine})


def _body(client: httpx2.Client, name: str, data: bytes, engine: str) -> httpx2.Response:
    headers = {"Content-Type": "application/octet-stream"}
    return client.post("/v1/cutouts", content=data, headers=headers, params={"engine": engine})


def _removebg(client: httpx2.Client, name: str, data: bytes, engine: str) -> httpx2.Response:
    return client.post("/v1.0/removebg", files={"image_file": (name, data)}, data={"size": "full"})


def _removebg_base64(client: httpx2.Client, name: str, data: bytes, engine: str) -> httpx2.Response:
    return client.post("/v1.0/removebg", data={"image_file_b64": base64.b64encode(data).decode(), "size": "full"})


def _rembg(client: httpx2.Client, name: str, data: bytes, engine: str) -> httpx2.Response:
    return client.post("/api/remove", files={"file": (name, data)}, data={"model": engine})


def _withoutbg(client: httpx2.Client, name: str, data: bytes, engine: str) -> httpx2.Response:
    return client.post("/v1.0/alpha-channel-base64", json={"image_base64": base64.b64encode(data).decode()})


WAYS: dict[str, Send] = {
    "cutouts": _cutouts,
    "cutouts-body": _body,
    "removebg": _removebg,
    "removebg-base64": _removebg_base64,
    "rembg": _rembg,
    "withoutbg": _withoutbg,
}
"""Way of HTTP by name. Those of remove.bg and withoutbg have no engine: they use the default."""


def outcome(client: httpx2.Client, way: str, name: str, data: bytes, engine: str) -> Outcome:
    """Sends a file, again where the server is busy, and returns the outcome. Raises Fault."""
    for _ in range(REPEATS):
        try:
            response = WAYS[way](client, name, data, engine)
        except httpx2.HTTPError as error:
            raise Fault(f"{way}: {type(error).__name__}: {error}") from error
        if response.status_code == 202:
            return _ended(client, response.json()["id"])
        if response.status_code not in (429, 503):
            return checked(way, response)
        if "Retry-After" not in response.headers:
            raise Fault(f"{way}: {response.status_code} without Retry-After: {response.text[:300]}")
        time.sleep(min(float(response.headers["Retry-After"]), 5))
    raise Fault(f"{way}: busy {REPEATS} times")


def _ended(client: httpx2.Client, job_id: str) -> Outcome:
    """Waits for the job that a slow image became, and returns its outcome. Raises Fault."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job.get("state") in ("done", "failed"):
            error = job.get("error")
            return Outcome(error_kinds()[error["code"]].status, error["code"]) if error else Outcome(200, "")
        time.sleep(0.2)
    raise Fault(f"job {job_id} has not ended after {TIMEOUT_S} s")


def checked(way: str, response: httpx2.Response) -> Outcome:
    """Returns the outcome of a response. Raises Fault where it has no result and no error of this API."""
    if response.status_code in (200, 303):  # 303: the result is too large for a response; it has its URL
        if not response.content:
            raise Fault(f"{way}: {response.status_code} without a body")
        return Outcome(200, "")
    if response.status_code >= 500:
        raise Fault(f"{way}: {response.status_code}: {response.text[:300]}")
    try:
        return Outcome(response.status_code, _code(response.json()))
    except (json.JSONDecodeError, LookupError, TypeError) as error:
        raise Fault(f"{way}: {response.status_code} without an error: {response.text[:300]}") from error


def _code(body: Mapping[str, object]) -> str:
    """Returns the code, or the text of an error that has none, in the format of any of the APIs."""
    match body:
        case {"error": {"code": str(code)}} | {"errors": [{"code": str(code)}, *_]}:
            return code
        case {"detail": str(text)} | {"error": str(text)} | {"detail": [{"msg": str(text)}]}:
            return text
        case _:
            raise LookupError(body)
