"""The settings and the services of a running function: made at the first call, kept while the function is warm."""

from __future__ import annotations

import os
from functools import cache, lru_cache, partial
from typing import Any

from botocore.config import Config
from botocore.session import Session, get_session

from lambdas.adapters.endpoint import SageMakerEndpoint
from lambdas.adapters.events import EventBus
from lambdas.adapters.fetch import GuardedWeb
from lambdas.adapters.interactive import WAIT_S, SageMakerInteractive
from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.queue import SqsQueue
from lambdas.adapters.registry import DynamoDBRegistry
from lambdas.adapters.storage import S3Storage
from lambdas.observe import Counted, metrics
from maskdrop.flow import WRITERS
from maskdrop.guard import Policy
from maskdrop.presets import Presets
from maskdrop.services import Registry, Services
from maskdrop.settings import Settings

CLIENT = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=WRITERS,
    signature_version="v4",
)
"""Short waits and a few tries: a function that cannot reach a service hands its messages back to the queue."""

S3_CLIENT = CLIENT.merge(Config(signature_version="s3v4", s3={"addressing_style": "virtual"}))
"""Presigned addresses of the older signature are refused by newer Regions. They name their Region only where the style
is chosen: s3.amazonaws.com redirects for the first hours of a bucket elsewhere, and a signature does not outlive it."""

INTERACTIVE_CLIENT = CLIENT.merge(Config(read_timeout=WAIT_S, retries={"total_max_attempts": 1}))
"""Its caller waits, and is told to try again."""


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings.from_env(os.environ)


@lru_cache(maxsize=1)
def registry() -> Registry:
    """By itself, for the authorizer: the other clients would be 60 ms more of its cold start."""
    return DynamoDBRegistry(_client("dynamodb"), settings().registry)


@lru_cache(maxsize=1)
def services() -> Services:
    here = settings()
    return Services(
        jobs=JobsTable(_client("dynamodb"), here.table, keep_days=here.keep_days),
        jobs_queue=SqsQueue(_client("sqs"), here.jobs_queue_url),
        storage=S3Storage(_client("s3", S3_CLIENT)),
        endpoint=SageMakerEndpoint(_client("sagemaker-runtime"), here.endpoint),
        events=Counted(EventBus(_client("events"), here.event_bus), metrics()),
        registry=registry(),
        presets=Presets(partial(registry().list, "preset")),
        interactive=SageMakerInteractive(_client("sagemaker-runtime", INTERACTIVE_CLIENT), here.interactive),
        web=GuardedWeb(Policy.of(here)),
        webhooks_queue=SqsQueue(_client("sqs"), here.webhooks_queue_url),
    )


@cache
def _client(service: str, config: Config = CLIENT) -> Any:
    """A client of botocore's own: boto3 would add 45 ms to every cold start, and nothing that is used here."""
    return _session().create_client(service, config=config)


@lru_cache(maxsize=1)
def _session() -> Session:
    """One for all clients: a session of its own would have each read the list of AWS's endpoints anew, for 50 ms."""
    return get_session()
