"""A scripted web server that sends exact bytes, and self-signed certificates."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

Script = dict[str, bytes | Callable[[], Iterable[bytes]]]
"""Path -> response: its bytes, or a function that returns its parts."""


@dataclass
class ScriptedServer:
    """requests: (head, body) of each. names: host names in SNI. connections: number accepted. sent: bytes sent."""

    script: Script
    port: int = 0
    requests: list[tuple[str, bytes]] = field(default_factory=list)
    names: list[str | None] = field(default_factory=list)
    connections: int = 0
    sent: int = 0

    def serve(self, listener: socket.socket, context: ssl.SSLContext | None) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:  # the listener is closed at the end of the test
                return
            self.connections += 1
            threading.Thread(target=self._handle, args=(sock, context), daemon=True).start()

    def _handle(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        try:
            with context.wrap_socket(sock, server_side=True) if context else sock as connection:
                self._respond(connection)
        except OSError:  # the client closed the connection
            sock.close()

    def _respond(self, connection: socket.socket) -> None:
        received = b""
        while b"\r\n\r\n" not in received:
            piece = connection.recv(4096)
            if not piece:
                return
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        lengths = [int(line.partition(":")[2]) for line in lines if line.lower().startswith("content-length:")]
        while len(body) < sum(lengths):
            body += connection.recv(4096)
        self.requests.append((head.decode("latin-1"), body))
        response = self.script[lines[0].split(" ")[1]]
        for piece in [response] if isinstance(response, bytes) else response():
            connection.sendall(piece)
            self.sent += len(piece)


@contextmanager
def served(script: Script, certificate: Path | None = None) -> Iterator[ScriptedServer]:
    """Runs a scripted server. certificate: PEM file with a certificate and its key, for TLS."""
    server = ScriptedServer(script)
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.sni_callback = lambda _sock, name, _context: server.names.append(name)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.port = listener.getsockname()[1]
        thread = threading.Thread(target=server.serve, args=(listener, context), daemon=True)
        thread.start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
    thread.join()


def make_certificate(file: Path, name: str) -> Path:
    """Writes a self-signed certificate for `name` and its key to one PEM file. Requires the program openssl."""
    key, certificate = file.with_suffix(".key"), file.with_suffix(".crt")
    subprocess.run(  # noqa: S603  fixed arguments
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    file.write_bytes(certificate.read_bytes() + key.read_bytes())
    return file
