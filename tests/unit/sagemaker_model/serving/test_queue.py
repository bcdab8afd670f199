from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from botocore.stub import Stubber

from maskdrop.errors import NotAllowed, QueueUnavailable
from sagemaker_model.serving.queue import Message, SqsQueue

URL = "https://sqs.us-east-1.amazonaws.com/1/q"


@pytest.fixture
def sqs(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[SqsQueue, Stubber]]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    queue = SqsQueue(URL, "us-east-1", threads=2)
    with Stubber(queue._sqs) as stub:
        yield queue, stub


def test_messages_are_received_with_a_visibility_timeout_and_deleted_by_receipt(sqs: tuple[SqsQueue, Stubber]) -> None:
    queue, stub = sqs
    parameters = {"QueueUrl": URL, "MaxNumberOfMessages": 2, "WaitTimeSeconds": 20, "VisibilityTimeout": 120}
    stub.add_response(
        "receive_message", {"Messages": [{"MessageId": "1", "ReceiptHandle": "r", "Body": "b"}]}, parameters
    )
    stub.add_response("receive_message", {}, parameters)
    stub.add_response("delete_message", {}, {"QueueUrl": URL, "ReceiptHandle": "r"})
    [message] = queue.receive(2, wait_s=20, visibility_timeout_s=120)
    assert message == Message("1", "r", "b")
    assert queue.receive(2, wait_s=20, visibility_timeout_s=120) == []
    queue.delete(message)
    stub.assert_no_pending_responses()


@pytest.mark.parametrize(("attributes", "expected"), [({"Attributes": {"RedrivePolicy": "{}"}}, True), ({}, False)])
def test_has_dead_letters_reads_the_redrive_policy(
    sqs: tuple[SqsQueue, Stubber], attributes: dict[str, dict[str, str]], expected: bool
) -> None:
    queue, stub = sqs
    stub.add_response("get_queue_attributes", attributes, {"QueueUrl": URL, "AttributeNames": ["RedrivePolicy"]})
    assert queue.has_dead_letters() is expected


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("AccessDenied", NotAllowed),
        ("AWS.SimpleQueueService.NonExistentQueue", NotAllowed),
        ("InvalidClientTokenId", NotAllowed),
        ("RequestThrottled", QueueUnavailable),
        ("InternalFailure", QueueUnavailable),
    ],
)
def test_errors_that_a_retry_can_solve_raise_queue_unavailable_and_others_not_allowed(
    sqs: tuple[SqsQueue, Stubber], code: str, error: type[Exception]
) -> None:
    queue, stub = sqs
    stub.add_client_error("receive_message", code, http_status_code=403)
    with pytest.raises(error, match=code):
        queue.receive(1, wait_s=1, visibility_timeout_s=1)


@pytest.mark.parametrize(
    ("raised", "error"),
    [(EndpointConnectionError(endpoint_url=URL), QueueUnavailable), (NoCredentialsError(), NotAllowed)],
)
def test_an_unreachable_queue_is_unavailable_and_missing_credentials_are_not_allowed(
    sqs: tuple[SqsQueue, Stubber], monkeypatch: pytest.MonkeyPatch, raised: Exception, error: type[Exception]
) -> None:
    queue, _ = sqs

    def broken(**_: object) -> None:
        raise raised

    monkeypatch.setattr(queue._sqs, "receive_message", broken)
    with pytest.raises(error):
        queue.receive(1, wait_s=1, visibility_timeout_s=1)


def test_a_name_is_looked_up_and_an_unknown_one_is_refused(sqs: tuple[SqsQueue, Stubber]) -> None:
    with pytest.raises(NotAllowed, match="Check the name or URL"), refused("QueueDoesNotExist"):
        SqsQueue("photos", "us-east-1", threads=1)


def test_the_visibility_timeout_of_a_delivery_is_changed(sqs: tuple[SqsQueue, Stubber]) -> None:
    queue, stub = sqs
    parameters = {"QueueUrl": URL, "ReceiptHandle": "r", "VisibilityTimeout": 0}
    stub.add_response("change_message_visibility", {}, parameters)
    queue.hide(Message("1", "r", "b"), 0)
    stub.assert_no_pending_responses()


@contextmanager
def refused(code: str) -> Iterator[None]:
    """Every AWS call fails with this error."""
    error = ClientError({"Error": {"Code": code}}, "GetQueueUrl")
    with patch("botocore.client.BaseClient._make_api_call", side_effect=error):
        yield
