"""HTTP/1.1 for `maskdrop serve`: uvicorn's protocol, which ignores a request to upgrade to HTTP/2."""

from __future__ import annotations

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_MAX = 64 * 1024
"""Bytes of a request's head up to which it is collected: as many as llhttp, uvicorn's parser, accepts in total."""

UPGRADE = re.compile(rb"\r\nupgrade: *h2c *(?=\r\n)", re.IGNORECASE)


class HttpProtocol(HttpToolsProtocol):
    """Removes the header `Upgrade: h2c` of the first request of a connection.

    java.net.http sends it with every first request that has no TLS. httptools treats the body of such a request as
    another protocol and drops it. A server that does not upgrade ignores the header (RFC 9110, section 7.8).
    """

    _head: bytes | None = b""

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end and len(self._head) <= HEAD_MAX:
                return
            data, self._head = UPGRADE.sub(b"", head + end[:2]) + end[2:] + rest, None
        super().data_received(data)
