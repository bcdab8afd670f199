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
