"""The settings and the services of a running function: made at the first call, kept while the function is warm."""

from __future__ import annotations

import os
from functools import lru_cache

from botocore.config import Config
from botocore.session import get_session

from lambdas.adapters.endpoint import SageMakerEndpoint
from lambdas.adapters.events import EventBus
from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.queue import SqsQueue
from lambdas.adapters.storage import S3Storage
from lambdas.observe import Counted, metrics
from maskdrop.flow import WRITERS
from maskdrop.services import Services
from maskdrop.settings import Settings

CLIENT = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=WRITERS,
    signature_version="v4",
)
"""Short waits and a few tries: a function that cannot reach a service hands its messages back to the queue."""

S3_CLIENT = CLIENT.merge(Config(signature_version="s3v4"))
"""Presigned addresses of the older signature are refused by newer Regions."""


@lru_cache(maxsize=1)
def settings() -> Settings:
    return Settings.from_env(os.environ)


@lru_cache(maxsize=1)
def services() -> Services:
    here = settings()
    # botocore alone: boto3 adds 45 ms to every cold start, and nothing that is used here.
    session = get_session()
    return Services(
        jobs=JobsTable(session.create_client("dynamodb", config=CLIENT), here.table, keep_days=here.keep_days),
        jobs_queue=SqsQueue(session.create_client("sqs", config=CLIENT), here.jobs_queue_url),
        storage=S3Storage(session.create_client("s3", config=S3_CLIENT)),
        endpoint=SageMakerEndpoint(session.create_client("sagemaker-runtime", config=CLIENT), here.endpoint),
        events=Counted(EventBus(session.create_client("events", config=CLIENT), here.event_bus), metrics()),
    )
