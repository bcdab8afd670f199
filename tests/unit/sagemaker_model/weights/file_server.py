"""A local HTTP/1.1 server of one file, with range requests and interrupted responses."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class ReceivedRequest:
    """One request and the status of its response. target: the whole URL if the server is used as a proxy."""

    target: str
    range: str
    if_range: str
    status: int


@dataclass
class FileServer:
    """Serves `content` at `url`, until its `with` ends.

    path: of the file.
    cut_at: the nth response ends before this byte of the file.
    etag: "" for none; by default a hash of the content.
    """

    content: bytes
    path: str = "/some.onnx"
    cut_at: tuple[int, ...] = ()
    ranges: bool = True
    etag: str = "default"
    requests: list[ReceivedRequest] = field(default_factory=list)
    sent: int = 0
    _server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self) -> None:
        if self.etag == "default":
            self.etag = f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        return f"{self.origin}{self.path}"

    def __enter__(self) -> FileServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner._respond(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _respond(self, request: BaseHTTPRequestHandler) -> None:
        range_header, condition = request.headers.get("Range", ""), request.headers.get("If-Range", "")
        start = int(range_header.removeprefix("bytes=").removesuffix("-")) if range_header else 0
        honoured = bool(self.ranges and range_header and condition in ("", self.etag))
        if not request.path.endswith(self.path):
            status = 404
        elif honoured and start >= len(self.content):
            status = 416
        else:
            status = 206 if honoured else 200
        number = len(self.requests)
        self.requests.append(ReceivedRequest(request.path, range_header, condition, status))
        begin = start if status == 206 else 0
        body = self.content[begin:] if status < 300 else b""
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        if self.etag:
            request.send_header("ETag", self.etag)
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.end_headers()
        stop = min(self.cut_at[number], len(self.content)) if number < len(self.cut_at) else len(self.content)
        body = body[: max(0, stop - begin)]
        for at in range(0, len(body), 65536):
            try:
                request.wfile.write(body[at : at + 65536])
            except ConnectionError:  # the client closed the connection
                break
            self.sent += len(body[at : at + 65536])
        request.close_connection = True
