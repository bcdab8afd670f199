"""Servers on 127.0.0.1 that need no key accept no requests of web pages, nor by the host names of other sites."""

import asyncio
from typing import Any

import pytest

from maskdrop.loopback import LocalOnly, is_local


def request(host: str, origin: str | None = None) -> list[tuple[bytes, bytes]]:
    return [(b"Host", host.encode()), *([(b"Origin", origin.encode())] if origin is not None else [])]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:45", "localhost:80", "LOCALHOST", "[::1]:1", "b.s3.localhost"]
)
@pytest.mark.parametrize("origin", [None, "http://127.0.0.1:8085", "http://localhost:3000", "https://localhost"])
def test_requests_of_this_machine_are_local(host: str, origin: str | None) -> None:
    assert is_local(request(host, origin))


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:4566", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.2"]
)
def test_a_host_name_of_another_site_is_refused_since_it_may_be_rebound_to_this_machine(host: str) -> None:
    assert not is_local(request(host))
    assert not is_local(request(host), any_origin=True)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://127.0.0.1.evil.example",
        "http://localhost@evil.example",
        "file://localhost",
    ],
)
def test_a_page_of_another_site_is_refused_except_by_the_api_that_needs_a_key(origin: str) -> None:
    assert not is_local(request("127.0.0.1:4566", origin))
    assert is_local(request("127.0.0.1:4566", origin), any_origin=True)


def test_refused_requests_do_not_reach_the_server() -> None:
    served: list[str] = []
    sent: list[dict[str, Any]] = []

    async def server(scope: Any, _receive: Any, _send: Any) -> None:
        served.append(scope["path"])

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    guarded = LocalOnly(server, open_path="/restapis/")
    for path in ("/", "/restapis/a/dev/_user_request_/v1/health"):
        scope = {"type": "http", "path": path, "headers": request("127.0.0.1", "https://evil.example")}
        asyncio.run(guarded(scope, None, send))
    assert served == ["/restapis/a/dev/_user_request_/v1/health"]
    assert sent[0]["status"] == 403
    assert not any(b"access-control" in name for name, _ in sent[0]["headers"])
