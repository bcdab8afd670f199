"""The stub of Telegram's Bot API (local/telegram.py) on a free port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount

from local import telegram
from local.config import HOST


@dataclass(frozen=True)
class RunningBotApi:
    """url: of the Bot API, at a host name that tests trust."""

    url: str

    def control(self, **script: list[int]) -> dict[str, Any]:
        """Sets the outcomes of the next calls by method. Returns what the bot has sent and called."""
        with httpx2.Client(trust_env=False) as http:
            state: dict[str, Any] = http.post(f"{self.url}/control", json={"script": script}).json()
        return state

    def upload(self, body: bytes) -> str:
        """Uploads a file as a user would. Returns its id."""
        with httpx2.Client(trust_env=False) as http:
            return str(http.post(f"{self.url}/files", content=body).json()["file_id"])

    def deliver(self, update: dict[str, Any], **query: str) -> dict[str, Any]:
        """Sends an update to the webhook. Returns its status and the method of the reply."""
        with httpx2.Client(trust_env=False, timeout=30) as http:
            outcome: dict[str, Any] = http.post(f"{self.url}/updates", json=update, params=query).json()
        return outcome


@contextmanager
def running_bot_api() -> Iterator[RunningBotApi]:
    listener = socket.create_server((HOST, 0))
    application = Starlette(routes=[Mount("/telegram", telegram.app())])
    server = uvicorn.Server(uvicorn.Config(application, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
        assert thread.is_alive()
    try:
        yield RunningBotApi(f"http://localhost:{listener.getsockname()[1]}/telegram")
    finally:
        server.should_exit = True
        thread.join()
