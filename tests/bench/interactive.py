"""Measures interactive requests through the whole stack and through the model server alone.

The emulator's own time is measured separately:
- the SageMaker emulator, by requests to it;
- the gateway, which passes images to a function and back as text, by a function that only returns bytes;
- the authorizer and the rate limit, by GET /v1/usage, which runs both without an image.
The rest is the time of this project's code. All calls alternate, so that each runs under the same load. Clients and
servers share the cores, so the CPU time of the function `api` is measured as well.
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

from infra.stages import load
from lambdas.adapters.interactive import SageMakerInteractive
from lambdas.http.routes import process
from local.config import KEY_ID, REGION, SECRET, LocalConfig
from local.stack import Stack
from maskdrop.access import Caller
from tests.bench.echo import echo
from tests.fakes import NOW, World

ENDPOINT = load("local").interactive_endpoint
CALLER = Caller(id="bench", owner="bench", scope="own", rate=1_000_000)

CLIENTS = (1, 4, 8)
ROUNDS = 5
CALLS = 6
"""Requests of each client in each round, to each of the six URLs."""

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request."""

    method: str
    url: str
    body: bytes = b""
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of the latency in milliseconds."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Latencies:
    """Latencies of each kind of call with `clients` concurrent clients in a closed loop.

    bare: the model server. sagemaker: the SageMaker emulator. echo: the gateway with as many bytes as a result. empty:
    the gateway with 100 bytes. usage: GET /v1/usage. end_to_end: POST /v1/cutouts.
    """

    clients: int
    bare: Latency
    sagemaker: Latency
    echo: Latency
    empty: Latency
    usage: Latency
    end_to_end: Latency

    @property
    def key_ms(self) -> float:
        """Median milliseconds of the authorizer and the rate limit."""
        return self.usage.p50_ms - self.empty.p50_ms

    @property
    def rest_ms(self) -> float:
        """Median milliseconds of `end_to_end` without `sagemaker`, `echo` and `key_ms`."""
        return self.end_to_end.p50_ms - self.sagemaker.p50_ms - self.echo.p50_ms - self.key_ms


def measured(config: LocalConfig, running_stack: Stack, photo: bytes) -> list[Latencies]:
    """Measures all kinds of calls, with each number of CLIENTS."""
    headers = {"Content-Type": "image/jpeg", "X-Api-Key": running_stack.api_key, "Accept": "*/*"}
    bare = Call("POST", f"{running_stack.model_url}/invocations", photo, headers)
    size = len(httpx2.post(bare.url, content=photo, headers=headers, timeout=TIMEOUT_S, trust_env=False).content)
    with echo(config) as url:
        calls = (
            bare,
            Call("POST", f"{config.sagemaker_url}/endpoints/{ENDPOINT}/invocations", photo, headers),
            Call("POST", f"{url}?bytes={size}", photo, headers),
            Call("GET", f"{url}?bytes=100", headers=headers),
            Call("GET", f"{running_stack.api_url}/v1/usage", headers=headers),
            Call("POST", f"{running_stack.api_url}/v1/cutouts", photo, headers),
        )
        return _measure(calls)


def _measure(calls: Sequence[Call]) -> list[Latencies]:
    for clients in CLIENTS:  # warm-up: starts a function for each concurrent call
        for call in calls:
            closed_loop(call, clients, 2)
    results = []
    for clients in CLIENTS:
        durations: list[list[float]] = [[] for _ in calls]
        for _ in range(ROUNDS):
            for kind, call in zip(durations, calls, strict=True):
                kind.extend(closed_loop(call, clients, CALLS))
        results.append(
            Latencies(clients, *(Latency(*map(float, np.percentile(kind, (50, 95)) * 1000)) for kind in durations))
        )
    return results


def cpu_ms(config: LocalConfig, photo: bytes) -> float:
    """Median CPU milliseconds of the function `api` for one interactive request, with its call to the endpoint."""
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
    durations = []
    for _ in range(ROUNDS * CALLS):
        start = time.process_time()
        with redirect_stdout(io.StringIO()):  # discards its log
            response = process(event, SimpleNamespace(), world.settings, services, NOW)  # type: ignore[arg-type]
        durations.append(time.process_time() - start)
        if response["statusCode"] != 200:
            raise RuntimeError(f"POST /v1/cutouts returned {response['statusCode']}: {response['body'][:300]}")
    return statistics.median(durations) * 1000


def closed_loop(call: Call, clients: int, count: int) -> list[float]:
    """Sends `count` calls from each of `clients` concurrent clients, one after the other; returns the seconds of each.

    Raises RuntimeError for a status other than 200.
    """
    url = urlsplit(call.url)
    target = urlunsplit(("", "", url.path, url.query, ""))

    def loop(_: int) -> list[float]:
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=TIMEOUT_S)
        seconds = []
        for _ in range(count):
            start = time.perf_counter()
            connection.request(call.method, target, call.body or None, dict(call.headers or {}))
            response = connection.getresponse()
            body = response.read()
            seconds.append(time.perf_counter() - start)
            if response.status != 200:
                raise RuntimeError(f"{call.url} returned {response.status}: {body[:300]!r}")
        connection.close()
        return seconds

    with ThreadPoolExecutor(clients) as pool:
        return [duration for durations in pool.map(loop, range(clients)) for duration in durations]
