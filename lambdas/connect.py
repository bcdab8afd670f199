"""Creates the settings and services of a function at the first call and caches them while the function is warm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from typing import Any

from botocore.config import Config
from botocore.session import Session, get_session

from lambdas.adapters.editors import NoEditor
from lambdas.adapters.editors.bedrock import BEDROCK_EDITORS
from lambdas.adapters.editors.breaker import SafeEditor
from lambdas.adapters.editors.local import LocalEditor
from lambdas.adapters.endpoint import RESPONSE_S, QueuedEndpoint, SageMakerEndpoint, SageMakerServerless
from lambdas.adapters.events import EventBus
from lambdas.adapters.fetch import Limits, PublicWeb
from lambdas.adapters.interactive import WAIT_S, SageMakerInteractive
from lambdas.adapters.jobs import JobsTable
from lambdas.adapters.queue import DeadLetterQueue, SqsQueue
from lambdas.adapters.registry import DynamoDBRegistry
from lambdas.adapters.storage import S3Storage
from lambdas.adapters.telegram import Parameter, Telegram
from lambdas.environment import bot_settings
from lambdas.environment import settings as settings
from lambdas.observe import CountedEditor, CountedEndpoint, CountedEvents, CountedSubmissions, metrics
from maskdrop.bot import DOWNLOAD_MAX, Bot
from maskdrop.editing import CALL_S
from maskdrop.presets import Presets
from maskdrop.services import Editor, Registry, Services
from maskdrop.ssrf import Policy
from maskdrop.threads import WRITERS

CLIENT = Config(
    connect_timeout=3,
    read_timeout=10,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=WRITERS,
    signature_version="v4",
)
"""Short timeouts and few retries: if a service is unavailable, a function returns its messages to the queue."""

S3_CLIENT = CLIENT.merge(
    Config(signature_version="s3v4", s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"})
)
"""Signature Version 4, because newer Regions reject presigned URLs with Version 2.

With the virtual style, presigned URLs name the Region. Without it, s3.amazonaws.com redirects requests in the first
hours of a bucket in another Region, and the signature does not cover the new host."""

TABLE_CLIENT = CLIENT.merge(Config(parameter_validation=False))
"""botocore would check every value of every record, for a tenth of the CPU time of `record`. The types of the adapter
and its tests against an emulator check the same."""

KEYS_CONNECT_S, KEYS_READ_S, KEYS_ATTEMPTS = 1, 2, 2
"""Timeouts of the authorizer's read in seconds, and its attempts: with a pause of at most 1 s they take 7 s."""

KEYS_CLIENT = CLIENT.merge(
    Config(
        connect_timeout=KEYS_CONNECT_S,
        read_timeout=KEYS_READ_S,
        retries={"mode": "standard", "total_max_attempts": KEYS_ATTEMPTS},
    )
)

INTERACTIVE_CLIENT = CLIENT.merge(Config(read_timeout=WAIT_S, retries={"total_max_attempts": 1}))
"""No retries, because the caller waits and can retry itself."""

SERVERLESS_CLIENT = CLIENT.merge(Config(read_timeout=RESPONSE_S, retries={"total_max_attempts": 1}))
"""No retries: `invoke` returns a refused bundle to its queue."""

BOT_API_S = 40.0
"""Timeout of a call of the Bot API in seconds: a result of 50 MB is uploaded in it."""

EDITOR_CLIENT = CLIENT.merge(Config(read_timeout=CALL_S, retries={"total_max_attempts": 1}))
"""No retries: a call that timed out may have been billed."""


@lru_cache(maxsize=1)
def keys() -> Registry:
    """Returns the registry alone, for the authorizer: the other clients would add 60 ms to its cold start."""
    return DynamoDBRegistry(_client("dynamodb", KEYS_CLIENT), settings().registry)


@lru_cache(maxsize=1)
def registry() -> Registry:
    return DynamoDBRegistry(_client("dynamodb"), settings().registry)


@lru_cache(maxsize=1)
def dead_letters() -> DeadLetterQueue:
    return DeadLetterQueue(_client("sqs"), settings().dead_letters_queue_url)


@lru_cache(maxsize=1)
def services() -> Services:
    config = settings()
    bundles_queue = SqsQueue(_client("sqs"), config.bundles_queue_url)
    endpoint = (
        QueuedEndpoint(bundles_queue, partial(datetime.now, UTC))
        if config.bundles_queue_url
        else CountedSubmissions(SageMakerEndpoint(_client("sagemaker-runtime"), config.endpoint), metrics())
    )
    return Services(
        jobs=JobsTable(_client("dynamodb", TABLE_CLIENT), config.table, keep_days=config.keep_days),
        jobs_queue=SqsQueue(_client("sqs"), config.jobs_queue_url),
        storage=S3Storage(_client("s3", S3_CLIENT)),
        endpoint=endpoint,
        events=CountedEvents(EventBus(_client("events"), config.event_bus), metrics()),
        registry=registry(),
        presets=Presets(partial(registry().list, "preset")),
        interactive=CountedEndpoint(
            SageMakerInteractive(_client("sagemaker-runtime", INTERACTIVE_CLIENT), config.interactive), metrics()
        ),
        web=PublicWeb(Policy.of(config)),
        webhooks_queue=SqsQueue(_client("sqs"), config.webhooks_queue_url),
        bundles_queue=bundles_queue,
        results_queue=SqsQueue(_client("sqs"), config.results_queue_url),
        edits_queue=SqsQueue(_client("sqs"), config.edits_queue_url),
        editor=_editor(),
        serverless=SageMakerServerless(_client("sagemaker-runtime", SERVERLESS_CLIENT), config.endpoint),
    )


@lru_cache(maxsize=1)
def bot() -> Bot:
    """Returns the services of the function `bot`."""
    config = bot_settings()
    parameter = Parameter(_client("ssm"), config.parameter)
    limits = Limits(bytes_max=DOWNLOAD_MAX, total_s=BOT_API_S)
    policy = replace(Policy.of(settings()), untrusted_ports=frozenset())  # the operator chooses the URL, not a caller
    telegram = Telegram(PublicWeb(policy, limits=limits), config.api_url, lambda: parameter.read().token)
    return Bot(config, parameter.read, telegram, SqsQueue(_client("sqs"), config.queue_url))


def _editor() -> Editor:
    """Returns the editor of the stage; one on Bedrock with the circuit breaker."""
    config = settings()
    if config.editor == "off":
        return NoEditor()
    if config.editor == "local":
        return CountedEditor(LocalEditor(), metrics())
    client = partial(_client, "bedrock-runtime", EDITOR_CLIENT)
    editor = BEDROCK_EDITORS[config.editor](client, str(_session().get_config_variable("region")))
    return CountedEditor(SafeEditor(editor, _circuits, f"editor-{config.editor}"), metrics())


def _circuits() -> Any:
    """Returns the store of the circuit breakers. Its import takes 50 ms, which only the function `edit` needs."""
    from aws_lambda_powertools.utilities.circuit_breaker.persistence import CircuitBreakerDynamoDBPersistence

    return CircuitBreakerDynamoDBPersistence(
        settings().registry,
        key_attr="kind",
        static_pk_value="circuit",
        sort_key_attr="name",
        expiry_attr="expires_at",
        boto3_client=_client("dynamodb"),
    )


@cache
def _client(service: str, config: Config = CLIENT) -> Any:
    """Returns a botocore client. boto3 would add 45 ms to every cold start, and no feature of it is used here."""
    return _session().create_client(service, config=config)


@lru_cache(maxsize=1)
def _session() -> Session:
    """Returns the session that all clients share: each session reads the list of AWS endpoints, which takes 50 ms."""
    return get_session()
