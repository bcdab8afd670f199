"""Sends messages to an SQS queue and receives those of a dead-letter queue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lambdas.adapters.errors import translated_errors
from maskdrop.errors import QueueUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

BATCH = 10
"""Maximum number of messages of one call."""


class SqsQueue:
    def __init__(self, client: SQSClient, url: str) -> None:
        self._client, self._url = client, url

    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:
        for start in range(0, len(bodies), BATCH):
            entries: list[SendMessageBatchRequestEntryTypeDef] = [
                {"Id": str(index), "MessageBody": body, "DelaySeconds": delay_s}
                for index, body in enumerate(bodies[start : start + BATCH])
            ]
            for entry in entries if group else ():
                entry["MessageGroupId"] = group
            with translated_errors(QueueUnavailable, "Sending to the queue"):
                response = self._client.send_message_batch(QueueUrl=self._url, Entries=entries)
            if failed := response.get("Failed"):
                raise QueueUnavailable(f"The queue rejected {len(failed)} messages: {failed[0].get('Code')}.")

    def hide(self, receipt: str, *, seconds: int) -> None:
        with translated_errors(QueueUnavailable, "Changing the visibility timeout of a message"):
            self._client.change_message_visibility(QueueUrl=self._url, ReceiptHandle=receipt, VisibilityTimeout=seconds)


class Message(NamedTuple):
    body: str
    receipt: str


class DeadLetterQueue:
    """A queue that has no event source."""

    def __init__(self, client: SQSClient, url: str) -> None:
        self._client, self._url = client, url

    def receive(self) -> list[Message]:
        """Returns up to 10 messages, none if the queue is empty. They are received again after the visibility timeout
        of the queue, unless they are deleted."""
        with translated_errors(QueueUnavailable, "Receiving from the dead-letter queue"):
            # A wait of 1 s queries all servers of the queue; without it, SQS queries some of them and may find nothing.
            response = self._client.receive_message(QueueUrl=self._url, MaxNumberOfMessages=BATCH, WaitTimeSeconds=1)
        return [Message(one["Body"], one["ReceiptHandle"]) for one in response.get("Messages", [])]

    def delete(self, receipt: str) -> None:
        with translated_errors(QueueUnavailable, "Deleting a dead letter"):
            self._client.delete_message(QueueUrl=self._url, ReceiptHandle=receipt)
