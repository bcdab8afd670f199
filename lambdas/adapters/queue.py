"""A queue in SQS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lambdas.adapters.border import as_error
from maskdrop.errors import QueueUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

BATCH = 10
"""Messages that SQS takes in one call."""


class SqsQueue:
    def __init__(self, client: SQSClient, url: str) -> None:
        self._client, self._url = client, url

    def send(self, bodies: Sequence[str], *, delay_s: int = 0) -> None:
        for start in range(0, len(bodies), BATCH):
            with as_error(QueueUnavailable, "Sending to the queue"):
                answer = self._client.send_message_batch(
                    QueueUrl=self._url,
                    Entries=[
                        {"Id": str(index), "MessageBody": body, "DelaySeconds": delay_s}
                        for index, body in enumerate(bodies[start : start + BATCH])
                    ],
                )
            if failed := answer.get("Failed"):
                raise QueueUnavailable(f"The queue refused {len(failed)} messages: {failed[0].get('Code')}.")

    def put_off(self, receipt: str, *, seconds: int) -> None:
        with as_error(QueueUnavailable, "Putting off a message"):
            self._client.change_message_visibility(QueueUrl=self._url, ReceiptHandle=receipt, VisibilityTimeout=seconds)
