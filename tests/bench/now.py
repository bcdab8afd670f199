"""One image now through the whole stack, beside the bare model server.

What the emulator takes for itself is told apart: the stand-in for SageMaker by a call to it alone; the gateway, which
hands images to a function and back as text, by a function that does nothing else; what it takes to ask the authorizer
and to count the call by GET /v1/usage, which does that without an image. What is left is our part. All take turns, so
that each meets the same machine; and as clients and servers share its cores, the CPU of our function is measured too.
"""

from __future__ import annotations

import base64
import http.client
import io
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import numpy as np
from botocore.session import get_session

from lambdas.adapters.interactive import SageMakerInteractive
from lambdas.http.routes import process
from local.config import KEY_ID, REGION, SECRET, LocalConfig
from local.stack import Stack
from maskdrop.access import Caller
from tests.bench.echo import echo
from tests.fakes import NOW, World

ENDPOINT = "maskdrop-dev-interactive"
CALLER = Caller(id="bench", owner="bench", scope="own", rate=1_000_000)

CLIENTS = (1, 4, 8)
TURNS = 5
CALLS = 6
"""Of each client in each turn, to each of the six."""

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Now:
    """What `clients` met who each asked for their next image when they had their last."""

    clients: int
    bare: Latency
    stand_in: Latency
    echo: Latency
    nothing: Latency
    usage: Latency
    whole: Latency

    @property
    def key_ms(self) -> float:
        """At the median, what it takes to ask whose key it is and to count the call."""
        return self.usage.p50_ms - self.nothing.p50_ms

    @property
    def left_ms(self) -> float:
        """Of the whole, at the median, without the model server, the stand-in, the gateway and the key."""
        return self.whole.p50_ms - self.stand_in.p50_ms - self.echo.p50_ms - self.key_ms


def measured(config: LocalConfig, here: Stack, photo: bytes) -> list[Now]:
    headers = {"Content-Type": "image/jpeg", "X-Api-Key": here.api_key, "Accept": "*/*"}
    bare = Call("POST", f"{here.model_url}/invocations", photo, headers)
    size = len(httpx2.post(bare.url, content=photo, headers=headers, timeout=TIMEOUT_S, trust_env=False).content)
    with echo(config) as address:
        calls = (
            bare,
            Call("POST", f"{config.sagemaker_url}/endpoints/{ENDPOINT}/invocations", photo, headers),
            Call("POST", f"{address}?bytes={size}", photo, headers),
            Call("GET", f"{address}?bytes=100", headers=headers),
            Call("GET", f"{here.api_url}/v1/usage", headers=headers),
            Call("POST", f"{here.api_url}/v1/cutouts", photo, headers),
        )
        return _in_turns(calls)


def _in_turns(calls: Sequence[Call]) -> list[Now]:
    for clients in CLIENTS:  # as many functions are started as calls come at once
        for call in calls:
            closed_loop(call, clients, 2)
    found = []
    for clients in CLIENTS:
        taken: list[list[float]] = [[] for _ in calls]
        for _ in range(TURNS):
            for kind, call in zip(taken, calls, strict=True):
                kind.extend(closed_loop(call, clients, CALLS))
        found.append(Now(clients, *(Latency(*map(float, np.percentile(kind, (50, 95)) * 1000)) for kind in taken)))
    return found


def cpu_ms(config: LocalConfig, photo: bytes) -> float:
    """CPU milliseconds of the function `api` for one image now, its call to the endpoint included: the median."""
    session = get_session()
    session.set_credentials(KEY_ID, SECRET)
    sagemaker: Any = session.create_client("sagemaker-runtime", region_name=REGION, endpoint_url=config.sagemaker_url)
    world = World()
    services = replace(world.services, interactive=SageMakerInteractive(sagemaker, ENDPOINT))
    event = {
        "httpMethod": "POST",
        "path": "/v1/cutouts",
        "headers": {"Content-Type": "image/jpeg"},
        "requestContext": {"requestId": "bench", "authorizer": CALLER.to_context()},
        "body": base64.b64encode(photo).decode(),
        "isBase64Encoded": True,
    }
    taken = []
    for _ in range(TURNS * CALLS):
        began = time.process_time()
        with redirect_stdout(io.StringIO()):  # its log
            answer = process(event, SimpleNamespace(), world.settings, services, NOW)  # type: ignore[arg-type]
        taken.append(time.process_time() - began)
        if answer["statusCode"] != 200:
            raise RuntimeError(f"POST /v1/cutouts answered {answer['statusCode']}: {answer['body'][:300]}")
    return statistics.median(taken) * 1000


def closed_loop(call: Call, clients: int, each: int) -> list[float]:
    """Seconds of every call, of clients who each send the next when they have the last. Raises RuntimeError for an
    answer that is not 200."""
    address = urlsplit(call.url)
    target = urlunsplit(("", "", address.path, address.query, ""))

    def loop(_: int) -> list[float]:
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=TIMEOUT_S)
        seconds = []
        for _ in range(each):
            began = time.perf_counter()
            connection.request(call.method, target, call.body or None, dict(call.headers or {}))
            answer = connection.getresponse()
            body = answer.read()
            seconds.append(time.perf_counter() - began)
            if answer.status != 200:
                raise RuntimeError(f"{call.url} answered {answer.status}: {body[:300]!r}")
        connection.close()
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        return [one for seconds in pool.map(loop, range(clients)) for one in seconds]
