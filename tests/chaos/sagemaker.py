"""Starts the SageMaker emulator (local/sagemaker.py) with faults of its calls and of its requests to the model server.

python -m tests.chaos.sagemaker SEED
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import httpx2
import uvicorn

from local.config import HOST, LocalConfig
from local.sagemaker import app
from tests.chaos.faulty import LATE_S, FaultyApp
from tests.chaos.plan import Faults


class FaultyTransport(httpx2.AsyncHTTPTransport):
    """Sends requests to the model server with the faults of the service `model`. Requests of its health have none.

    A timeout does not wait: it breaks the connection, like a lost response."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self._faults = faults

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        fault = self._faults.of_call("model") if request.url.path == "/invocations" else None
        if fault is None:
            return await super().handle_async_request(request)
        if fault == "throttle":
            return httpx2.Response(503, headers={"Retry-After": "1"}, text="This error was injected.")
        if fault == "error":
            return httpx2.Response(500, text="This error was injected.")
        if fault == "late":
            await asyncio.sleep(LATE_S)
        response = await super().handle_async_request(request)
        body = await response.aread()
        if fault == "sent_twice":
            response = await super().handle_async_request(request)
            body = await response.aread()
        elif fault in ("response_lost", "timeout"):
            raise httpx2.RemoteProtocolError("This error was injected.", request=request)
        elif fault == "half_response":
            body = body[: len(body) // 2]
        headers = {name: value for name, value in response.headers.items() if name.lower() != "content-length"}
        return httpx2.Response(response.status_code, headers=headers, content=body)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    config = LocalConfig.from_env(os.environ)
    faults = Faults(int(sys.argv[1]))
    faulty = FaultyApp(app(config, FaultyTransport(faults)), faults)
    uvicorn.run(faulty, host=HOST, port=config.sagemaker_port, log_level="warning", timeout_graceful_shutdown=2)
