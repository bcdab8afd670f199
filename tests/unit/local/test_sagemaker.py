"""The stand-in for SageMaker over a container, a bucket and a topic that are fakes."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.exceptions
import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response

from local.config import LocalConfig
from local.sagemaker import (
    REALTIME_BYTES_MAX,
    SERVERLESS_BYTES_MAX,
    ContainerError,
    InvalidRequest,
    PayloadTooLarge,
    SageMaker,
)
from maskdrop.wire import CUSTOM_ATTRIBUTES, Notification

RESOURCES = {
    "AWS::SageMaker::Endpoint": {
        "bulk": {"EndpointConfigName": "bulk-config"},
        "now": {"EndpointConfigName": "now-config"},
        "cold": {"EndpointConfigName": "cold-config"},
    },
    "AWS::SageMaker::EndpointConfig": {
        "bulk-config": {
            "AsyncInferenceConfig": {
                "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 2},
                "OutputConfig": {
                    "S3OutputPath": "s3://results/out/",
                    "S3FailurePath": "s3://results/failed/",
                    "NotificationConfig": {"SuccessTopic": "ok", "ErrorTopic": "error"},
                },
            }
        },
        "now-config": {},
        "cold-config": {"ProductionVariants": [{"ServerlessConfig": {"MemorySizeInMB": 6144}}]},
    },
}


class FakeS3:
    def __init__(self) -> None:
        self.objects = {("in", "bundle.json"): b"a bundle"}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  boto3's words
        if (Bucket, Key) not in self.objects:
            raise botocore.exceptions.ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        self.objects[Bucket, Key] = Body


class FakeSns:
    def __init__(self) -> None:
        self.messages: list[tuple[str, str]] = []

    def publish(self, *, TopicArn: str, Message: str) -> None:  # noqa: N803
        self.messages.append((TopicArn, Message))


Container = Callable[[httpx2.Request], httpx2.Response]


class Bench:
    def __init__(self, config: LocalConfig, container: Container) -> None:
        self.s3, self.sns = FakeS3(), FakeSns()
        http = httpx2.AsyncClient(base_url=config.model_url, transport=httpx2.MockTransport(container))
        self.sagemaker = SageMaker(config, s3=self.s3, sns=self.sns, http=http)

    async def submit(self, source: str = "s3://in/bundle.json", **headers: str) -> Response:
        """One asynchronous request, to its very end."""
        answer = await self.sagemaker.invoke_async(
            request(
                "bulk", {"X-Amzn-SageMaker-InputLocation": source, "X-Amzn-SageMaker-Inference-Id": "b1", **headers}
            )
        )
        await asyncio.gather(*self.sagemaker.pending)
        return answer


def request(endpoint: str, headers: dict[str, str], body: bytes = b"") -> Request:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    scope = {
        "type": "http",
        "method": "POST",
        "path_params": {"name": endpoint},
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }
    return Request(scope, receive)


@pytest.fixture
def config(tmp_path: Path) -> LocalConfig:
    (tmp_path / "sagemaker.json").write_text(json.dumps(RESOURCES))
    return LocalConfig(state=tmp_path)


def answering(*answers: httpx2.Response | Exception) -> Container:
    """A container that is ready, and answers so, the last answer for ever."""
    left: Iterator[httpx2.Response | Exception] = iter(answers)
    last: httpx2.Response | Exception = answers[-1]

    def container(asked: httpx2.Request) -> httpx2.Response:
        if asked.url.path == "/ping":
            return httpx2.Response(200)
        answer = next(left, last)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return container


def test_an_answer_goes_to_s3_and_word_of_it_to_the_success_topic(config: LocalConfig) -> None:
    bench = Bench(config, answering(httpx2.Response(200, json={"said": 1})))
    answer = asyncio.run(bench.submit())
    [(topic, message)] = bench.sns.messages
    said = Notification.from_body(message)
    assert (answer.status_code, topic) == (202, "ok")
    assert (said.bundle, said.completed, said.input) == ("b1", True, "s3://in/bundle.json")
    assert said.output == answer.headers["X-Amzn-SageMaker-OutputLocation"]
    assert json.loads(bench.s3.objects["results", said.output.removeprefix("s3://results/")]) == {"said": 1}


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        (answering(httpx2.Response(400, text="no bundle")), "400: no bundle"),
        (answering(httpx2.ReadError("gone")), "broke the connection"),
        (answering(httpx2.ReadTimeout("late")), "broke the connection"),
    ],
)
def test_a_failure_is_told_once_to_the_error_topic(config: LocalConfig, container: Container, reason: str) -> None:
    bench = Bench(config, container)
    answer = asyncio.run(bench.submit())
    [(topic, message)] = bench.sns.messages
    said = Notification.from_body(message)
    assert (topic, said.completed, said.input) == ("error", False, "s3://in/bundle.json")
    assert reason in said.reason
    failure = answer.headers["X-Amzn-SageMaker-FailureLocation"].removeprefix("s3://results/")
    assert reason in bench.s3.objects["results", failure].decode()


def test_an_input_that_is_not_there_fails(config: LocalConfig) -> None:
    bench = Bench(config, answering(httpx2.Response(200)))
    asyncio.run(bench.submit("s3://in/nothing"))
    assert [topic for topic, _ in bench.sns.messages] == ["error"]


def test_a_busy_container_is_asked_again(config: LocalConfig) -> None:
    busy = httpx2.Response(503, headers={"Retry-After": "0"})
    bench = Bench(config, answering(busy, busy, httpx2.Response(200, text="ok")))
    asyncio.run(bench.submit())
    assert [topic for topic, _ in bench.sns.messages] == ["ok"]


def test_nothing_is_sent_before_the_container_is_ready(config: LocalConfig) -> None:
    asked: list[str] = []

    def container(one: httpx2.Request) -> httpx2.Response:
        asked.append(one.url.path)
        if asked.count("/ping") < 3:
            raise httpx2.ConnectError("starting")
        return httpx2.Response(200)

    asyncio.run(Bench(config, container).submit())
    assert asked == ["/ping"] * 3 + ["/invocations"]


def test_a_request_that_waited_too_long_fails(config: LocalConfig) -> None:
    bench = Bench(config, lambda _: httpx2.Response(500))
    asyncio.run(bench.submit(**{"X-Amzn-SageMaker-RequestTTLSeconds": "0"}))
    [(topic, message)] = bench.sns.messages
    assert topic == "error"
    assert "expired" in Notification.from_body(message).reason


def test_no_more_are_at_work_than_the_endpoint_allows(config: LocalConfig) -> None:
    at_work, most = 0, 0

    async def container(one: httpx2.Request) -> httpx2.Response:
        nonlocal at_work, most
        if one.url.path == "/invocations":
            at_work += 1
            most = max(most, at_work)
            await asyncio.sleep(0)
            at_work -= 1
        return httpx2.Response(200)

    async def many() -> None:
        bench = Bench(config, container)  # type: ignore[arg-type]
        await asyncio.gather(*(bench.submit() for _ in range(8)))

    asyncio.run(many())
    assert most <= 2


@pytest.mark.parametrize("endpoint", ["none", "now"])
def test_an_endpoint_that_is_not_there_or_not_asynchronous_refuses(config: LocalConfig, endpoint: str) -> None:
    bench = Bench(config, answering(httpx2.Response(200)))
    with pytest.raises(InvalidRequest):
        asyncio.run(bench.sagemaker.invoke_async(request(endpoint, {"X-Amzn-SageMaker-InputLocation": "s3://in/a"})))
    assert not bench.sns.messages


def test_a_synchronous_call_passes_body_and_options_both_ways(config: LocalConfig) -> None:
    def container(asked: httpx2.Request) -> httpx2.Response:
        assert asked.headers[CUSTOM_ATTRIBUTES] == "{}"
        return httpx2.Response(200, content=asked.content[::-1], headers={"Content-Type": "image/png"})

    bench = Bench(config, container)
    answer = asyncio.run(bench.sagemaker.invoke(request("now", {CUSTOM_ATTRIBUTES: "{}"}, b"abc")))
    assert (answer.status_code, answer.body, answer.headers["Content-Type"]) == (200, b"cba", "image/png")


def test_the_containers_error_becomes_a_model_error(config: LocalConfig) -> None:
    bench = Bench(config, answering(httpx2.Response(422, text="unreadable")))
    answer = asyncio.run(bench.sagemaker.invoke(request("now", {}, b"abc")))
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (424, "ModelError")
    assert json.loads(bytes(answer.body))["OriginalStatusCode"] == 422


SIZES = [("cold", SERVERLESS_BYTES_MAX), ("now", REALTIME_BYTES_MAX)]


@pytest.mark.parametrize(("endpoint", "most"), SIZES)
def test_a_synchronous_call_takes_and_gives_what_sagemaker_does_and_no_more(
    config: LocalConfig, endpoint: str, most: int
) -> None:
    bench = Bench(config, lambda asked: httpx2.Response(200, content=asked.content))
    echoed = asyncio.run(bench.sagemaker.invoke(request(endpoint, {}, b"x" * most)))
    assert len(echoed.body) == most
    with pytest.raises(PayloadTooLarge):
        asyncio.run(bench.sagemaker.invoke(request(endpoint, {}, b"x" * (most + 1))))
    doubling = Bench(config, lambda asked: httpx2.Response(200, content=asked.content * 2))
    with pytest.raises(ContainerError):
        asyncio.run(doubling.sagemaker.invoke(request(endpoint, {}, b"x" * (most // 2 + 1))))


def test_a_serverless_endpoint_waits_for_its_container_and_a_real_time_one_fails(config: LocalConfig) -> None:
    asked: list[str] = []

    def starting(request: httpx2.Request) -> httpx2.Response:
        """There at the fourth time of asking."""
        asked.append(request.url.path)
        if len(asked) < 4:
            raise httpx2.ConnectError("refused", request=request)
        return httpx2.Response(200, content=b"done")

    bench = Bench(config, starting)
    answer = asyncio.run(bench.sagemaker.invoke(request("cold", {}, b"abc")))
    assert answer.body == b"done"
    assert asked == ["/invocations", "/ping", "/ping", "/ping", "/invocations"]
    asked.clear()
    with pytest.raises(ContainerError, match="ConnectError"):
        asyncio.run(bench.sagemaker.invoke(request("now", {}, b"abc")))
