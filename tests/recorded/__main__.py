"""Records the next request to a port of this machine as tests/recorded/NAME.http, and responds with the image."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Callable

from tests.recorded import FOLDER, IMAGE


def main(port: int, name: str) -> None:
    with socket.create_server(("127.0.0.1", port)) as server, server.accept()[0] as connection:
        data = _until(connection, b"", lambda data: b"\r\n\r\n" in data)
        head = data.partition(b"\r\n\r\n")[0].lower()
        if b"expect: 100-continue" in head:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", head)
        if b"transfer-encoding: chunked" in head:
            data = _until(connection, data, lambda data: data.endswith(b"0\r\n\r\n"))
        elif length:
            data = _until(connection, data, lambda data: len(data) >= len(head) + 4 + int(length[1]))
        (FOLDER / f"{name}.http").write_bytes(data)
        fields = f"Content-Type: image/png\r\nContent-Length: {len(IMAGE)}\r\nConnection: close"
        connection.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + IMAGE)


def _until(connection: socket.socket, data: bytes, ends: Callable[[bytes], bool]) -> bytes:
    while not ends(data):
        received = connection.recv(65536)
        if not received:
            raise ConnectionError("The client closed the connection.")
        data += received
    return data


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
