from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from standalone.protocol import HttpProtocol
from tests.recorded import NAMES, recorded


async def echo(request: Request) -> Response:
    return Response(await request.body())


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of a server that returns the body of each request."""
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["POST"])])
    config = uvicorn.Config(app, http=HttpProtocol, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listener]),), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        server.should_exit = True
        thread.join(10)


def sent(connection: socket.socket, *parts: bytes) -> tuple[int, bytes]:
    for part in parts:
        connection.sendall(part)
    response = HTTPResponse(connection, method="POST")
    response.begin()
    while response.status == 100:
        response.begin()
    return response.status, response.read()


def flood(connection: socket.socket) -> None:
    """Sends 100 MB of a header or a body."""
    for _ in range(10_000):
        connection.sendall(b"a" * 10_000)


@pytest.mark.parametrize("name", NAMES)
def test_the_body_of_every_recorded_request_arrives(port: int, name: str) -> None:
    request = recorded(name)
    raw = request.to(f"127.0.0.1:{port}")
    head = raw.index(b"\r\n\r\n")
    for cuts in ((), (5,), (head + 2,), (head + 4,), (head + 20,)):
        parts = [raw[start:end] for start, end in zip((0, *cuts), (*cuts, None), strict=True)]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert sent(connection, *parts) == (200, request.body)


def test_a_connection_serves_several_requests(port: int) -> None:
    requests = [recorded(name) for name in ("java-nethttp-h2c", "java-nethttp", "curl")]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for request in requests:
            assert sent(connection, request.to(f"127.0.0.1:{port}")) == (200, request.body)


def test_a_request_that_is_not_http_is_rejected(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert sent(connection, b"\x16\x03\x01 hello\r\n\r\n")[0] == 400


POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


def test_a_later_request_with_upgrade_keeps_its_body(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for body in (b"first", b"second"):
            length = f"Content-Length: {len(body)}\r\n\r\n".encode()
            assert sent(connection, POST + UPGRADE + length + body) == (200, body)


def test_a_request_whose_client_sends_no_more_gets_its_response(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(POST + b"Content-Length: 4\r\n\r\nbody")
        connection.shutdown(socket.SHUT_WR)
        assert sent(connection) == (200, b"body")
        assert connection.recv(1) == b""


def test_half_a_body_whose_client_sends_no_more_closes_the_connection(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(POST + b"Content-Length: 4\r\n\r\nbo")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""


def test_a_head_may_be_split_inside_pipelined_requests(port: int) -> None:
    request = POST + b"Content-Length: 4\r\n\r\nbody"
    for cut in range(1, len(POST) + 21):
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            assert sent(connection, request + request[:cut]) == (200, b"body")
            assert sent(connection, request[cut:]) == (200, b"body")


@pytest.mark.parametrize("before", [b"", POST + b"Content-Length: 0\r\n\r\n"])
def test_a_head_above_the_limit_closes_the_connection(port: int, before: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(before + POST)
        with pytest.raises(OSError, match=r"reset|Broken"):
            flood(connection)


def test_a_head_that_does_not_arrive_in_time_closes_the_connection(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standalone.protocol.HEAD_S", 0.05)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"POST / HT")
        assert connection.recv(1) == b""


def test_a_body_that_is_not_read_is_discarded_up_to_a_limit(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standalone.protocol.DISCARDED_MAX", 1_000_000)
    refused = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        assert sent(connection, refused % 900_000 + bytes(900_000))[0] == 405
        assert sent(connection, POST + b"Content-Length: 4\r\n\r\nbody") == (200, b"body")
        assert sent(connection, refused % 2_000_000)[0] == 405
        with pytest.raises(OSError, match=r"reset|Broken"):
            flood(connection)
