"""The protocol of the queue that `worker` reads, and its adapter to SQS by boto3."""

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
"""Messages that SQS returns in one call at most."""

POLL_S = 20
"""Seconds that SQS waits for a message, its maximum. An idle worker calls it 130,000 times a month, for $0.05."""

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
"""Error codes of SQS that last until the queue URL, the credentials or the permissions are corrected."""


@dataclass(frozen=True, slots=True)
class Message:
    """A received message. receipt: the receipt handle of this delivery."""

    id: str
    receipt: str
    body: str


class Queue(Protocol):
    """A queue. Every method raises QueueUnavailable, and NotAllowed for errors that a retry cannot solve."""

    def has_dead_letters(self) -> bool:
        """Whether the queue has a redrive policy, which moves messages to a dead-letter queue."""

    def receive(self, count: int, *, wait_s: int, visibility_timeout_s: int) -> list[Message]:
        """Returns at most `count` messages, 1 to RECEIVE_MAX, after at most `wait_s` seconds.

        Other consumers do not get them for `visibility_timeout_s` seconds (the visibility timeout).
        """

    def hide(self, message: Message, seconds: int) -> None:
        """Sets the visibility timeout of this delivery, from now; 0 returns the message to the queue at once."""

    def delete(self, message: Message) -> None: ...


class SqsQueue:
    """SQS by boto3. name: of the queue, or its URL. threads: number of connections, one for each calling thread.

    Raises NotAllowed for an unknown queue.
    """

    def __init__(self, name: str, region: str, threads: int) -> None:
        with _translated():
            self._sqs: Any = boto3.client(
                "sqs",
                region_name=region,
                config=Config(
                    max_pool_connections=threads,
                    connect_timeout=5,
                    read_timeout=POLL_S + 10,
                    retries={"mode": "standard", "total_max_attempts": 4},
                ),
            )
            is_url = name.startswith(("https://", "http://"))
            self._url: str = name if is_url else self._sqs.get_queue_url(QueueName=name)["QueueUrl"]

    def has_dead_letters(self) -> bool:
        with _translated():
            response = self._sqs.get_queue_attributes(QueueUrl=self._url, AttributeNames=["RedrivePolicy"])
        return "RedrivePolicy" in response.get("Attributes", {})

    def receive(self, count: int, *, wait_s: int, visibility_timeout_s: int) -> list[Message]:
        with _translated():
            response = self._sqs.receive_message(
                QueueUrl=self._url,
                MaxNumberOfMessages=count,
                WaitTimeSeconds=wait_s,
                VisibilityTimeout=visibility_timeout_s,
            )
        return [Message(one["MessageId"], one["ReceiptHandle"], one["Body"]) for one in response.get("Messages", ())]

    def hide(self, message: Message, seconds: int) -> None:
        with _translated():
            self._sqs.change_message_visibility(
                QueueUrl=self._url, ReceiptHandle=message.receipt, VisibilityTimeout=seconds
            )

    def delete(self, message: Message) -> None:
        with _translated():
            self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message.receipt)


@contextmanager
def _translated() -> Iterator[None]:
    """Converts the errors of botocore to NotAllowed or QueueUnavailable."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in REFUSALS:
            raise NotAllowed(
                f"SQS refuses the queue: {code}. Check the name or URL, the Region and the permissions."
            ) from error
        raise QueueUnavailable(f"SQS returned the error {code}.") from error
    except (NoCredentialsError, PartialCredentialsError, NoRegionError) as error:
        raise NotAllowed(f"SQS cannot be called. {error}") from error
    except BotoCoreError as error:
        raise QueueUnavailable(f"SQS cannot be reached ({type(error).__name__}).") from error
