"""Tests the adapters of the endpoint with responses in SageMaker's wire format."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import BotoCoreError, ConnectTimeoutError, ReadTimeoutError
from botocore.session import get_session

from lambdas import connect
from lambdas.adapters.endpoint import RESPONSE_S, WAIT_S, QueuedEndpoint, SageMakerServerless
from lambdas.observe import CountedSubmissions
from maskdrop.errors import EndpointFailed, EndpointUnavailable
from maskdrop.flow import DELAY_S
from maskdrop.wire import BundleMessage
from tests.fakes import NOW, SETTINGS, FakeQueue

Send = Callable[..., AWSResponse]


class Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, **_: Any) -> Any:
        yield self._body

    def read(self, *_: Any) -> bytes:
        body, self._body = self._body, b""
        return body


def responds(status: int, body: bytes, **headers: str) -> Send:
    return lambda request, **_: AWSResponse(request.url, status, HTTPHeaders.from_dict(headers), Raw(body))


def fails(status: int, kind: str, **fields: Any) -> Send:
    return responds(status, json.dumps({"Message": kind, **fields}).encode(), **{"x-amzn-errortype": kind})


def raises(error: BotoCoreError) -> Send:
    def send(**_: Any) -> AWSResponse:
        raise error

    return send


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[AWSRequest]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    return []


def runtime() -> Any:
    """Returns the client that the function `invoke` uses."""
    return get_session().create_client("sagemaker-runtime", config=connect.SERVERLESS_CLIENT)


def serverless(send: Send, requests: list[AWSRequest]) -> SageMakerServerless:
    client = runtime()

    def record(request: AWSRequest, **more: Any) -> AWSResponse:
        requests.append(request)
        return send(request=request, **more)

    client.meta.events.register("before-send.sagemaker-runtime", record)
    return SageMakerServerless(client, "bulk")


def test_a_bundle_is_sent_and_its_response_returned(requests: list[AWSRequest]) -> None:
    endpoint = serverless(responds(200, b'{"bundle": "b1"}'), requests)
    assert endpoint.invoke(b'{"items": []}') == b'{"bundle": "b1"}'
    [request] = requests
    assert str(request.url).endswith("/endpoints/bulk/invocations")
    sent: Any = (request.body, request.headers["Content-Type"])
    assert sent == (b'{"items": []}', b"application/json")


@pytest.mark.parametrize(
    "send",
    [
        fails(424, "ModelError", OriginalStatusCode=500),
        fails(424, "ModelError", OriginalStatusCode=400),
        fails(424, "ModelError", OriginalStatusCode=0),
        raises(ReadTimeoutError(endpoint_url="https://sagemaker")),
    ],
    ids=["500", "400", "crash or timeout", "no response"],
)
def test_a_container_that_failed_is_endpoint_failed_without_a_retry(send: Send, requests: list[AWSRequest]) -> None:
    with pytest.raises(EndpointFailed):
        serverless(send, requests).invoke(b"{}")
    assert len(requests) == 1


@pytest.mark.parametrize(
    "send",
    [
        fails(429, "ThrottlingException"),
        fails(429, "ModelNotReadyException"),
        fails(400, "ValidationError"),
        fails(403, "AccessDeniedException"),
        fails(500, "InternalFailure"),
        fails(503, "ServiceUnavailable"),
        fails(530, "InternalDependencyException"),
        fails(424, "ModelError", OriginalStatusCode=503),
        raises(ConnectTimeoutError(endpoint_url="https://sagemaker")),
    ],
    ids=[
        "throttled", "starting", "no endpoint", "no permission", "internal", "unavailable", "dependency",
        "busy container", "no connection",
    ],
)  # fmt: skip
def test_a_bundle_that_was_not_accepted_is_endpoint_unavailable_without_a_retry(
    send: Send, requests: list[AWSRequest]
) -> None:
    with pytest.raises(EndpointUnavailable):
        serverless(send, requests).invoke(b"{}")
    assert len(requests) == 1


@pytest.mark.usefixtures("requests")
def test_the_client_waits_longer_than_sagemaker_for_the_container() -> None:
    assert runtime().meta.config.read_timeout == RESPONSE_S > 60


def test_a_submitted_bundle_waits_in_the_queue_as_long_as_in_an_asynchronous_endpoint() -> None:
    queue = FakeQueue()
    QueuedEndpoint(queue, lambda: NOW).submit("b1", "s3://results/bundles/in/b1.json")
    [(body, delay_s)] = queue.sent
    expires_at = NOW + timedelta(seconds=WAIT_S)
    expected = BundleMessage(bundle="b1", input="s3://results/bundles/in/b1.json", expires_at=expires_at)
    assert (BundleMessage.from_body(body), delay_s) == (expected, 0)


def test_a_bundle_expires_and_is_delayed_at_most_within_the_time_of_the_sweep() -> None:
    assert SETTINGS.overdue_s > WAIT_S + max(DELAY_S)


@pytest.mark.parametrize(("url", "kind"), [("https://sqs/bundles", QueuedEndpoint), ("", CountedSubmissions)])
def test_the_queue_of_bundles_selects_the_endpoint(
    url: str, kind: type, requests: list[AWSRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**SETTINGS.to_env(), "MASKDROP_BUNDLES_QUEUE_URL": url}.items():
        monkeypatch.setenv(name, value)
    caches = (connect.settings, connect.registry, connect.services, connect._client, connect._session)
    for cache in caches:
        cache.cache_clear()
    try:
        assert isinstance(connect.services().endpoint, kind)
    finally:
        for cache in caches:
            cache.cache_clear()
