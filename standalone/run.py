"""Runs the server of `maskdrop serve` until SIGTERM or Ctrl-C."""

from __future__ import annotations

import logging
from collections.abc import Callable

import uvicorn

from sagemaker_model.engines.vitmatte import load_refiner
from sagemaker_model.serving.startup import load_engines
from sagemaker_model.settings import ServerSettings
from standalone.app import create_app
from standalone.protocol import HttpProtocol
from standalone.settings import ServeSettings

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 75
"""Seconds for which an idle connection is kept: more than the 60 s of a load balancer or of nginx, which would
otherwise send a request into a connection that closes."""


def serve(settings: ServeSettings, model: ServerSettings, ready: Callable[[], None] = lambda: None) -> None:
    """Serves HTTP until SIGTERM, which drains the requests in progress. ready: called before the first request.

    Raises InvalidSettings, InvalidWeights, NoGpu, TableUnavailable.
    """
    settings.check()
    model, engines, detectors = load_engines(model)
    refiner = load_refiner(model.device, model.weights_dir, model.threads)
    # uvicorn raises the signal again after the drain: the handler of `load_engines` then ends the process.
    uvicorn.run(
        create_app(settings, model, engines, detectors, refiner, ready),
        host=settings.host,
        port=settings.port,
        http=HttpProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_s,
    )
