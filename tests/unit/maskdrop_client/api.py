"""The API in this process, over the fakes of the services, as a transport of httpx2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from urllib.parse import unquote

import httpx2

from lambdas.http.forms import parts_of
from maskdrop.access import Caller
from maskdrop_client import AsyncMaskdrop, Maskdrop
from tests.fakes import World
from tests.unit.lambdas.http import vendors

URL = "https://api.test/prod"
KEY = "the-key"
CALLER = Caller(id="k", owner="shop", scope="all", rate=1000, key="digest-of-the-key")

Hook = Callable[[httpx2.Request], httpx2.Response | None]


@dataclass
class Api:
    """The routes of the API, and the storage behind presigned URLs. before: may return a response of its own, or raise.
    requests: all requests. slept: the pauses of the clients in seconds, which they do not wait.

    Like a function of Lambda, it processes one request at a time: a resolver has the context of one.
    """

    world: World = field(default_factory=World)
    before: Hook = field(default=lambda _: None)
    caller: Caller | None = CALLER
    requests: list[httpx2.Request] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    _busy: Lock = field(default_factory=Lock)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.requests.append(request)
        if (early := self.before(request)) is not None:
            return early
        if request.url.host != "api.test":
            return self._stored(request)
        with self._busy:
            found = vendors.call(
                self.world,
                request.method,
                unquote(request.url.raw_path.decode().partition("?")[0]).removeprefix("/prod"),
                body=request.content,
                query=dict(request.url.params),
                headers=_titled(request.headers),
                caller=self.caller,
            )
        return httpx2.Response(found.status, headers=found.headers, content=found.body)

    def _stored(self, request: httpx2.Request) -> httpx2.Response:
        """S3: serves an object, or stores the file of a form."""
        bucket = request.url.host
        if request.method == "POST":
            parts = parts_of(request.content, request.headers["content-type"])
            assert [*parts][-1] == "file"
            self.world.storage.objects[bucket, parts["key"].decode()] = parts["file"]
            return httpx2.Response(204)
        body = self.world.storage.objects.get((bucket, unquote(request.url.path).removeprefix("/")))
        return httpx2.Response(404) if body is None else httpx2.Response(200, content=body)

    def client(self, **arguments: Any) -> Client:
        client = Client(URL, KEY, transport=httpx2.MockTransport(self), **arguments)
        client.slept = self.slept
        return client

    def async_client(self, **arguments: Any) -> AsyncClient:
        client = AsyncClient(URL, KEY, transport=httpx2.MockTransport(self), **arguments)
        client.slept = self.slept
        return client


class Client(Maskdrop):
    """A client whose pauses take no time: its clock advances by them."""

    slept: list[float]

    def _sleep(self, seconds: float) -> float:
        self.slept.append(seconds)
        return sum(self.slept)


class AsyncClient(AsyncMaskdrop):
    slept: list[float]

    async def _sleep(self, seconds: float) -> float:
        self.slept.append(seconds)
        return sum(self.slept)


def _titled(headers: httpx2.Headers) -> dict[str, str]:
    """API Gateway passes the names of headers as clients write them."""
    return {name.title(): value for name, value in headers.items()}
