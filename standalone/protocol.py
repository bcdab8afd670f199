"""HTTP/1.1 for `maskdrop serve`: uvicorn's protocol, with limits on the head of a request."""

from __future__ import annotations

import asyncio
import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX = 64 * 1024
"""Maximum bytes of a request's head, its request line and headers: those that llhttp, uvicorn's parser, accepts for a
URL. llhttp has no limit on headers."""

HEAD_S = 30.0
"""Seconds in which a head must arrive: uvicorn has no limit, and each connection holds a file descriptor."""

DISCARDED_MAX = 256 * 1024 * 1024
"""Maximum bytes of a body that are read and discarded after the response: several times the largest body."""

UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)

TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HttpProtocol(HttpToolsProtocol):
    """Collects the head of each request before uvicorn parses it.

    Removes the header `Upgrade`, which java.net.http sends with the first request of every connection without TLS
    ("h2c"). httptools treats the body of such a request as another protocol and drops it. A server that does not
    upgrade ignores the header (RFC 9110, section 7.8).

    Responds to a client that has closed its side of the connection after its request (a half-closed connection).
    """

    _head: bytearray | None
    """The head that is collected. None from the first byte that the parser has of a request to the last one."""

    _begun = 0
    """Bytes of a head that the parser has in part: of a request that follows another one without a pause."""

    _discarded = 0

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = bytearray()
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            self._begun += len(data) if self._begun else 0
            if self._begun > HEAD_MAX:
                self._close(TOO_LARGE)
                return
            super().data_received(data)
        else:
            self._start_timer()
            self._head += data
            end = self._head.find(b"\r\n\r\n", max(0, len(self._head) - len(data) - 3))
            if (end if end >= 0 else len(self._head)) > HEAD_MAX:
                self._close(TOO_LARGE)
                return
            if end < 0:
                return
            data, self._head = UPGRADE.sub(b"", self._head[: end + 2]) + bytes(self._head[end + 2 :]), None
            super().data_received(data)
        if self._responded() and not self.transport.is_closing() and self.timeout_keep_alive_task is None:
            # The rest of a body that nobody reads: without this timer the connection has none any more.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection open until the response to a complete request is sent."""
        if self._responded() or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head, self._begun = None, 1
        self._start_timer()

    def on_headers_complete(self) -> None:
        self._begun = 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.cycle.response_complete:
            self._discarded += len(body)
            if self._discarded > DISCARDED_MAX:
                self.transport.close()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head, self._discarded = bytearray(), 0

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def _responded(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _start_timer(self) -> None:
        """Closes the connection after HEAD_S seconds, unless a head has arrived."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_S, self._close, b"")

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close(self, response: bytes) -> None:
        if response and self._responded():
            self.transport.write(response)
        self.transport.close()
