"""The emulator of Rekognition and Bedrock (local/ai.py) on a free port, with boto3 clients."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
import cv2
import httpx2
import numpy as np
import uvicorn
from botocore.config import Config
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.routing import Mount

from local import ai
from local.config import HOST, LocalConfig


@dataclass(frozen=True)
class RunningAi:
    """config: its URLs and the environment variables with them."""

    config: LocalConfig

    def control(self, **changes: Any) -> httpx2.Response:
        """Changes the conditions (local.ai.Conditions)."""
        return _http().post(f"{self.config.ai_url}/control", json=changes)

    def reset(self) -> None:
        self.control(script={}, lifecycle={}, labels={}).raise_for_status()

    def calls(self, operation: str) -> int:
        return int(self._usage()["calls"].get(operation, 0))

    def billed(self, operation: str) -> list[dict[str, Any]]:
        """Returns the billed images of an operation, oldest first."""
        return [one for one in self._usage()["billed"] if one["operation"] == operation]

    def client(self, service: str, region: str = "us-east-1", *, read_timeout: float = 30) -> Any:
        """Returns a boto3 client without retries."""
        name = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}"
        return _client(service, region, self.config.ai_endpoints[name], read_timeout)

    def _usage(self) -> dict[str, Any]:
        usage: dict[str, Any] = _http().get(f"{self.config.ai_url}/usage").json()
        return usage


@cache
def _http() -> httpx2.Client:
    return httpx2.Client(trust_env=False)


@cache
def _client(service: str, region: str, endpoint_url: str, read_timeout: float) -> Any:
    create: Any = boto3.client
    return create(
        service,
        region_name=region,
        endpoint_url=endpoint_url,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(read_timeout=read_timeout, retries={"total_max_attempts": 1}, proxies={}),
    )


@contextmanager
def running_ai() -> Iterator[RunningAi]:
    listener = socket.create_server((HOST, 0))
    config = LocalConfig(sagemaker_port=listener.getsockname()[1])
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[Mount("/ai", ai.app(config))]),
            log_level="critical",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    running = RunningAi(config)
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield running
    finally:
        server.should_exit = True
        thread.join()


def png(image: NDArray[np.uint8]) -> bytes:
    """Returns an image, HxW, HxWx3 BGR or HxWx4, as a PNG file."""
    return bytes(cv2.imencode(".png", image)[1])


def png_base64(image: NDArray[np.uint8]) -> str:
    return base64.b64encode(png(image)).decode()


def image_of(text: str) -> NDArray[np.uint8]:
    """Returns the image of a file in base64, with its alpha channel."""
    return np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)
