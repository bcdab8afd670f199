"""Guards servers on 127.0.0.1 that need no key against web pages, which a browser of the same machine may show.

A page of another site sends requests with its own Origin; by DNS rebinding it sends them with another Host.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Awaitable[None]]

HOST = re.compile(r"(127\.0\.0\.1|\[::1\]|([a-z0-9_.-]+\.)?localhost)(:\d+)?", re.IGNORECASE)
"""Names of this machine, which no other site can have."""

MESSAGE = (
    b"This server accepts requests of this machine only: by the host 127.0.0.1 or localhost, not by other web pages."
)


def is_local(headers: Iterable[tuple[bytes, bytes]], *, any_origin: bool = False) -> bool:
    """Whether a request names this machine in Host and, unless `any_origin`, has no Origin of another site."""
    found = {name.lower(): value.decode("latin-1") for name, value in headers}
    origin = found.get(b"origin", "")
    own = not origin or bool(re.fullmatch(rf"https?://{HOST.pattern}", origin, re.IGNORECASE))
    return bool(HOST.fullmatch(found.get(b"host", ""))) and (own or any_origin)


class LocalOnly:
    """An ASGI app that responds with 403 to requests that are not local.

    open_path: prefix of the paths that need a key of their own: pages of other sites may call them.
    """

    def __init__(self, app: App, open_path: str = "") -> None:
        self._app, self._open = app, open_path

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        any_origin = bool(self._open) and scope.get("path", "").startswith(self._open)
        if scope["type"] != "http" or is_local(scope["headers"], any_origin=any_origin):
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": MESSAGE})
