"""What `worker` needs of SQS, as one small protocol, and its boto3 adapter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)

from maskdrop.errors import NotAllowed, QueueUnavailable

RECEIVE_MAX = 10
"""Messages that SQS hands out in one call."""

POLL_S = 20
"""How long SQS waits for a message: its most. An idle worker asks 130,000 times a month, for $0.05."""

HIDDEN_MAX_S = 43_200
"""How long SQS hides a message at most: 12 hours."""

REFUSALS = (
    "AWS.SimpleQueueService.NonExistentQueue",
    "AccessDenied",
    "AccessDeniedException",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "QueueDoesNotExist",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
"""SQS's errors that last until someone mends the queue's address, the credentials or the rights."""


@dataclass(frozen=True, slots=True)
class Message:
    """receipt: what names this delivery of it."""

    id: str
    receipt: str
    body: str


class Queue(Protocol):
    """Every method raises QueueUnavailable, and NotAllowed for what does not pass by itself."""

    def has_dead_letters(self) -> bool:
        """Whether what is delivered too often goes to another queue."""

    def receive(self, count: int, *, wait_s: int, hidden_s: int) -> list[Message]:
        """At most `count`, 1 to RECEIVE_MAX, after `wait_s` at the latest; nobody else gets them for `hidden_s`."""

    def delete(self, message: Message) -> None: ...


class SqsQueue:
    """SQS by boto3. `threads` call it at once, each with a connection of its own. Raises NotAllowed without a Region to
    ask in."""

    def __init__(self, url: str, threads: int) -> None:
        self._url = url
        with _translated():
            self._sqs: Any = boto3.client(
                "sqs",
                config=Config(
                    max_pool_connections=threads,
                    connect_timeout=5,
                    read_timeout=POLL_S + 10,
                    retries={"mode": "standard", "total_max_attempts": 4},
                ),
            )

    def has_dead_letters(self) -> bool:
        with _translated():
            answer = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["RedrivePolicy"])
        return "RedrivePolicy" in answer.get("Attributes", {})

    def receive(self, count: int, *, wait_s: int, hidden_s: int) -> list[Message]:
        with _translated():
            answer = self._sqs.receive_message(
                QueueUrl=self._url, MaxNumberOfMessages=count, WaitTimeSeconds=wait_s, VisibilityTimeout=hidden_s
            )
        return [Message(one["MessageId"], one["ReceiptHandle"], one["Body"]) for one in answer.get("Messages", ())]

    def delete(self, message: Message) -> None:
        with _translated():
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in REFUSALS:
            raise NotAllowed(f"SQS refuses the queue: {code}. Check its address, the Region and the rights.") from error
        raise QueueUnavailable(f"SQS answered {code}.") from error
    except (NoCredentialsError, PartialCredentialsError, NoRegionError) as error:
        raise NotAllowed(f"SQS cannot be asked. {error}") from error
    except BotoCoreError as error:
        raise QueueUnavailable(f"SQS is out of reach ({type(error).__name__}).") from error
