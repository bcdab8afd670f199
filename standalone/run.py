"""Runs the server of `maskdrop serve` until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn

from maskdrop.settings import InvalidSettings
from sagemaker_model.engines.vitmatte import load_refiner
from sagemaker_model.serving.startup import load_engines
from sagemaker_model.settings import ServerSettings
from standalone.app import create_app
from standalone.database import locked
from standalone.protocol import HttpProtocol
from standalone.settings import ServeSettings

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Seconds for which an idle connection is kept: more than the 60 s of a load balancer or of nginx, which would
otherwise send a request into a connection that closes."""


def serve(settings: ServeSettings, model: ServerSettings, ready: Callable[[], None] = lambda: None) -> None:
    """Serves HTTP until SIGTERM, which drains the requests in progress. ready: called before the first request.

    Raises InvalidSettings, FolderInUse, InvalidWeights, NoGpu, TableUnavailable.
    """
    settings.check()
    with locked(settings.data):
        _require_free_port(settings)
        _serve(settings, model, ready)


def _serve(settings: ServeSettings, model: ServerSettings, ready: Callable[[], None]) -> None:
    model, engines, detectors = load_engines(model)
    refiner = load_refiner(model.device, model.weights_dir, model.threads)
    config = uvicorn.Config(
        create_app(settings, model, engines, detectors, refiner),
        host=settings.host,
        port=settings.port,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
    # uvicorn raises the signal again after the drain: the handler of `load_engines` then ends the process.
    _Server(config, ready).run()


def _require_free_port(settings: ServeSettings) -> None:
    """Raises InvalidSettings, before the engines are loaded, where the server could not open its port."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        socket.create_server((settings.host, settings.port), family=family).close()
    except OSError as error:
        raise InvalidSettings(
            f"{settings.host}:{settings.port} cannot be opened ({error.strerror}); use another --port (SERVE_PORT)."
        ) from error


class _Server(uvicorn.Server):
    """Calls `ready` once the port is open, which is after the start-up of the app."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
