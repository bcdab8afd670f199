"""The SageMaker emulator with a fake container, bucket and topic."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
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
    NotReady,
    PayloadTooLarge,
    SageMaker,
    ServiceUnavailable,
    Throttled,
    app,
)
from maskdrop.wire import CUSTOM_ATTRIBUTES, Notification
from tests.unit.local.test_autoscaling import ENDPOINT, TEMPLATE

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
        "cold-config": {"ProductionVariants": [{"ServerlessConfig": {"MemorySizeInMB": 3072, "MaxConcurrency": 2}}]},
    },
}


class FakeS3:
    def __init__(self) -> None:
        self.objects = {("in", "bundle.json"): b"a bundle"}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803  names of boto3
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


class Harness:
    """The emulator over fakes."""

    def __init__(self, config: LocalConfig, container: Container) -> None:
        self.s3, self.sns = FakeS3(), FakeSns()
        http = httpx2.AsyncClient(base_url=config.model_url, transport=httpx2.MockTransport(container))
        self.sagemaker = SageMaker(config, s3=self.s3, sns=self.sns, http=http)

    async def submit(self, source: str = "s3://in/bundle.json", **headers: str) -> Response:
        """Sends an asynchronous request and waits until it is processed."""
        response = await self.sagemaker.invoke_async(
            request(
                "bulk", {"X-Amzn-SageMaker-InputLocation": source, "X-Amzn-SageMaker-Inference-Id": "b1", **headers}
            )
        )
        await asyncio.gather(*self.sagemaker.pending)
        return response

    async def control(self, **changes: Any) -> dict[str, Any]:
        """Changes the simulated conditions and returns them."""
        response = await self.sagemaker.control(request("", {}, json.dumps(changes).encode()))
        conditions: dict[str, Any] = json.loads(bytes(response.body))
        return conditions

    async def invoke(self, endpoint: str) -> Response:
        return await self.sagemaker.invoke(request(endpoint, {}, b"abc"))


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
    config = LocalConfig(state=tmp_path)
    config.account.mkdir(parents=True)
    config.sagemaker_file.write_text(json.dumps(RESOURCES))
    return config


def responding(*responses: httpx2.Response | Exception) -> Container:
    """Returns a ready container with these responses in order; it repeats the last one."""
    remaining: Iterator[httpx2.Response | Exception] = iter(responses)
    last: httpx2.Response | Exception = responses[-1]

    def container(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/ping":
            return httpx2.Response(200)
        response = next(remaining, last)
        if isinstance(response, Exception):
            raise response
        return response

    return container


def test_a_result_is_written_to_s3_and_notified_to_the_success_topic(config: LocalConfig) -> None:
    harness = Harness(config, responding(httpx2.Response(200, json={"key": 1})))
    response = asyncio.run(harness.submit())
    [(topic, message)] = harness.sns.messages
    notification = Notification.from_body(message)
    assert (response.status_code, topic) == (202, "ok")
    assert (notification.bundle, notification.completed, notification.input) == ("b1", True, "s3://in/bundle.json")
    assert notification.output == response.headers["X-Amzn-SageMaker-OutputLocation"]
    assert json.loads(harness.s3.objects["results", notification.output.removeprefix("s3://results/")]) == {"key": 1}


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        (responding(httpx2.Response(400, text="no bundle")), "400: no bundle"),
        (responding(httpx2.ReadError("gone")), "broke the connection"),
        (responding(httpx2.ReadTimeout("late")), "broke the connection"),
    ],
)
def test_a_failure_is_notified_once_to_the_error_topic(config: LocalConfig, container: Container, reason: str) -> None:
    harness = Harness(config, container)
    response = asyncio.run(harness.submit())
    [(topic, message)] = harness.sns.messages
    notification = Notification.from_body(message)
    assert (topic, notification.completed, notification.input) == ("error", False, "s3://in/bundle.json")
    assert reason in notification.reason
    failure = response.headers["X-Amzn-SageMaker-FailureLocation"].removeprefix("s3://results/")
    assert reason in harness.s3.objects["results", failure].decode()


def test_a_missing_input_fails(config: LocalConfig) -> None:
    harness = Harness(config, responding(httpx2.Response(200)))
    asyncio.run(harness.submit("s3://in/nothing"))
    assert [topic for topic, _ in harness.sns.messages] == ["error"]


def test_a_request_to_a_busy_container_is_retried(config: LocalConfig) -> None:
    busy = httpx2.Response(503, headers={"Retry-After": "0"})
    harness = Harness(config, responding(busy, busy, httpx2.Response(200, text="ok")))
    asyncio.run(harness.submit())
    assert [topic for topic, _ in harness.sns.messages] == ["ok"]


def test_no_request_is_sent_before_the_container_is_ready(config: LocalConfig) -> None:
    paths: list[str] = []

    def container(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.path)
        if paths.count("/ping") < 3:
            raise httpx2.ConnectError("starting")
        return httpx2.Response(200)

    asyncio.run(Harness(config, container).submit())
    assert paths == ["/ping"] * 3 + ["/invocations"]


def test_an_expired_request_fails(config: LocalConfig) -> None:
    harness = Harness(config, lambda _: httpx2.Response(500))
    asyncio.run(harness.submit(**{"X-Amzn-SageMaker-RequestTTLSeconds": "0"}))
    [(topic, message)] = harness.sns.messages
    assert topic == "error"
    assert "expired" in Notification.from_body(message).reason


def test_concurrent_requests_do_not_exceed_the_limit_of_the_endpoint(config: LocalConfig) -> None:
    active, maximum = 0, 0

    async def container(request: httpx2.Request) -> httpx2.Response:
        nonlocal active, maximum
        if request.url.path == "/invocations":
            active += 1
            maximum = max(maximum, active)
            await asyncio.sleep(0)
            active -= 1
        return httpx2.Response(200)

    async def many() -> None:
        harness = Harness(config, container)  # type: ignore[arg-type]
        await asyncio.gather(*(harness.submit() for _ in range(8)))

    asyncio.run(many())
    assert maximum <= 2


@pytest.mark.parametrize("endpoint", ["none", "now"])
def test_a_request_to_a_missing_or_synchronous_endpoint_is_rejected(config: LocalConfig, endpoint: str) -> None:
    harness = Harness(config, responding(httpx2.Response(200)))
    with pytest.raises(InvalidRequest):
        asyncio.run(harness.sagemaker.invoke_async(request(endpoint, {"X-Amzn-SageMaker-InputLocation": "s3://in/a"})))
    assert not harness.sns.messages


def test_a_synchronous_request_forwards_body_and_headers_in_both_directions(config: LocalConfig) -> None:
    def container(request: httpx2.Request) -> httpx2.Response:
        assert request.headers[CUSTOM_ATTRIBUTES] == "{}"
        return httpx2.Response(200, content=request.content[::-1], headers={"Content-Type": "image/png"})

    harness = Harness(config, container)
    response = asyncio.run(harness.sagemaker.invoke(request("now", {CUSTOM_ATTRIBUTES: "{}"}, b"abc")))
    assert (response.status_code, response.body, response.headers["Content-Type"]) == (200, b"cba", "image/png")


def test_an_error_of_the_container_is_returned_as_a_model_error(config: LocalConfig) -> None:
    harness = Harness(config, responding(httpx2.Response(422, text="unreadable")))
    response = asyncio.run(harness.sagemaker.invoke(request("now", {}, b"abc")))
    assert (response.status_code, response.headers["x-amzn-errortype"]) == (424, "ModelError")
    assert json.loads(bytes(response.body))["OriginalStatusCode"] == 422


SIZES = [("cold", SERVERLESS_BYTES_MAX), ("now", REALTIME_BYTES_MAX)]


@pytest.mark.parametrize(("endpoint", "bytes_max"), SIZES)
def test_synchronous_requests_and_responses_are_limited_to_the_sizes_of_sagemaker(
    config: LocalConfig, endpoint: str, bytes_max: int
) -> None:
    harness = Harness(config, lambda request: httpx2.Response(200, content=request.content))
    echoed = asyncio.run(harness.sagemaker.invoke(request(endpoint, {}, b"x" * bytes_max)))
    assert len(echoed.body) == bytes_max
    with pytest.raises(PayloadTooLarge):
        asyncio.run(harness.sagemaker.invoke(request(endpoint, {}, b"x" * (bytes_max + 1))))
    doubling = Harness(config, lambda request: httpx2.Response(200, content=request.content * 2))
    with pytest.raises(ContainerError):
        asyncio.run(doubling.sagemaker.invoke(request(endpoint, {}, b"x" * (bytes_max // 2 + 1))))


def test_a_serverless_endpoint_waits_for_its_container_and_a_realtime_endpoint_fails(config: LocalConfig) -> None:
    paths: list[str] = []

    def starting(request: httpx2.Request) -> httpx2.Response:
        """Accepts connections from the fourth request on."""
        paths.append(request.url.path)
        if len(paths) < 4:
            raise httpx2.ConnectError("refused", request=request)
        return httpx2.Response(200, content=b"done")

    harness = Harness(config, starting)
    response = asyncio.run(harness.sagemaker.invoke(request("cold", {}, b"abc")))
    assert response.body == b"done"
    assert paths == ["/invocations", "/ping", "/ping", "/ping", "/invocations"]
    paths.clear()
    with pytest.raises(ContainerError, match="ConnectError"):
        asyncio.run(harness.sagemaker.invoke(request("now", {}, b"abc")))


def blocking(started: asyncio.Event, end: asyncio.Event) -> Any:
    """Returns a ready container that responds when `end` is set."""

    async def container(request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/invocations":
            started.set()
            await end.wait()
        return httpx2.Response(200)

    return container


def test_a_serverless_endpoint_throttles_requests_above_its_concurrency(config: LocalConfig) -> None:
    async def three() -> None:
        started, end = asyncio.Event(), asyncio.Event()
        harness = Harness(config, blocking(started, end))
        two = [asyncio.create_task(harness.invoke("cold")) for _ in range(2)]
        await started.wait()
        with pytest.raises(Throttled, match="2"):
            await harness.invoke("cold")
        end.set()
        assert [response.status_code for response in await asyncio.gather(*two)] == [200, 200]
        assert (await harness.invoke("cold")).status_code == 200

    asyncio.run(three())


def test_a_synchronous_request_fails_after_the_timeout(config: LocalConfig) -> None:
    harness = Harness(config, responding(httpx2.ReadTimeout("late")))
    with pytest.raises(ContainerError, match="within 60 seconds"):
        asyncio.run(harness.invoke("cold"))


async def settle() -> None:
    """Lets every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_without_capacity_asynchronous_requests_wait_and_are_processed_afterwards(config: LocalConfig) -> None:
    async def outage() -> None:
        harness = Harness(config, responding(httpx2.Response(200)))
        await harness.control(capacity=False)
        waiting = [asyncio.create_task(harness.submit()) for _ in range(3)]
        await settle()
        assert not harness.sns.messages
        await harness.control(capacity=True)
        await asyncio.gather(*waiting)
        assert [topic for topic, _ in harness.sns.messages] == ["ok"] * 3

    asyncio.run(outage())


def test_a_shorter_time_to_live_expires_requests_that_are_queued_already(config: LocalConfig) -> None:
    async def outage() -> None:
        harness = Harness(config, responding(httpx2.Response(200)))
        await harness.control(capacity=False)
        waiting = [asyncio.create_task(harness.submit()) for _ in range(3)]
        await settle()
        await harness.control(ttl_s=0)
        await asyncio.gather(*waiting)
        assert [topic for topic, _ in harness.sns.messages] == ["error"] * 3

    asyncio.run(outage())


@pytest.mark.parametrize(("endpoint", "error"), [("cold", NotReady), ("now", ServiceUnavailable)])
def test_without_capacity_synchronous_requests_fail(config: LocalConfig, endpoint: str, error: type[Exception]) -> None:
    async def outage() -> None:
        harness = Harness(config, responding(httpx2.Response(200)))
        await harness.control(capacity=False)
        with pytest.raises(error):
            await harness.invoke(endpoint)

    asyncio.run(outage())


def test_endpoints_that_are_not_deployed_reject_every_request(config: LocalConfig) -> None:
    async def outage() -> None:
        harness = Harness(config, responding(httpx2.Response(200)))
        await harness.control(deployed=False)
        with pytest.raises(InvalidRequest, match="not found"):
            await harness.invoke("cold")
        with pytest.raises(InvalidRequest, match="not found"):
            await harness.submit()
        await harness.control(deployed=True)
        assert (await harness.invoke("cold")).status_code == 200

    asyncio.run(outage())


def test_an_unknown_condition_is_rejected_and_changes_nothing(config: LocalConfig) -> None:
    async def change() -> None:
        harness = Harness(config, responding(httpx2.Response(200)))
        before = await harness.control()
        with pytest.raises(InvalidRequest, match="weather"):
            await harness.control(weather="rain", capacity=False)
        assert await harness.control() == before

    asyncio.run(change())


def test_an_invocation_with_a_signature_is_recorded_in_strict_mode(config: LocalConfig) -> None:
    signature = {"Authorization": "AWS4-HMAC-SHA256 Credential=ASIA1/20261129/us-east-1/sagemaker/aws4_request, ..."}

    async def post(strict: LocalConfig) -> None:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app(strict)), base_url="http://127.0.0.1") as http:
            await http.post("/endpoints/bulk/async-invocations", headers=signature)
            await http.post("/endpoints/bulk/invocations")

    asyncio.run(post(config))
    assert not config.calls_file.exists()
    asyncio.run(post(replace(config, strict=True)))
    [call] = [json.loads(line) for line in config.calls_file.read_text().splitlines()]
    assert (call["key"], call["action"]) == ("ASIA1", "sagemaker:InvokeEndpointAsync")
    assert call["resource"].endswith(":endpoint/bulk")


@pytest.fixture
def scaled(config: LocalConfig, tmp_path: Path) -> LocalConfig:
    """A stage whose endpoint `bulk` scales from 0 to 10 instances."""
    config = replace(config, made=tmp_path / "made")
    config.cdk_out.mkdir(parents=True)
    for name in config.stacks:
        body = json.dumps(TEMPLATE).replace(ENDPOINT, "bulk") if "Bulk" in name else '{"Resources": {}}'
        (config.cdk_out / f"{name}.template.json").write_text(body)
    return config


async def observed(harness: Harness) -> dict[str, Any]:
    """Returns what GET /instances reports of the endpoint `bulk`."""
    response = await harness.sagemaker.instances(request("", {}))
    endpoint: dict[str, Any] = json.loads(bytes(response.body))["endpoints"]["bulk"]
    return endpoint


def test_under_load_the_endpoint_wakes_scales_out_and_returns_to_zero(scaled: LocalConfig) -> None:
    """30 requests of a minute each, two at a time on an instance, 3000 times faster than real time."""

    async def scenario() -> tuple[list[int], list[dict[str, Any]]]:
        harness = Harness(scaled, responding(httpx2.Response(200, json={})))
        await harness.control(time_lapse=3000, start_s=300, request_s=60)
        scale = asyncio.create_task(harness.sagemaker.scale())
        await asyncio.gather(*(harness.sagemaker.invoke_async(asynchronous()) for _ in range(30)))
        ready = [0]
        while len(harness.sns.messages) < 30 or ready[-1] > 0:
            state = await observed(harness)
            if state["ready"] != ready[-1]:
                ready.append(state["ready"])
            assert state["running"] <= 2 * max(ready)
            await asyncio.sleep(0)
        scale.cancel()
        return ready, (await observed(harness))["activities"]

    ready, activities = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert ready[:2] == [0, 1]  # the alarm wakes the first instance, then target tracking follows the backlog
    assert max(ready) > 1
    assert ready[-1] == 0
    assert activities[0]["policy"] == "wake-up"
    assert {one["policy"] for one in activities[1:]} == {"follow-backlog"}


def test_a_stage_limits_the_instances_and_a_test_can_raise_the_limit(scaled: LocalConfig) -> None:
    async def most(limit: int) -> int:
        harness = Harness(scaled, responding(httpx2.Response(200, json={})))
        await harness.control(time_lapse=3000, start_s=60, request_s=600, instances_max=limit)
        scale = asyncio.create_task(harness.sagemaker.scale())
        for _ in range(40):
            await harness.sagemaker.invoke_async(asynchronous())
        desired = 0
        while len(harness.sns.messages) < 40:
            desired = max(desired, (await observed(harness))["desired"])
            await asyncio.sleep(0)
        scale.cancel()
        return desired

    assert asyncio.run(asyncio.wait_for(most(2), 60)) == 2
    assert asyncio.run(asyncio.wait_for(most(0), 60)) > 2


def test_without_a_time_lapse_the_endpoint_always_has_one_instance(scaled: LocalConfig) -> None:
    async def scenario() -> dict[str, Any]:
        harness = Harness(scaled, responding(httpx2.Response(200, json={})))
        await harness.submit()
        return await observed(harness)

    assert asyncio.run(scenario()) == {"desired": 1, "ready": 1, "backlog": 0, "running": 0, "activities": []}


def asynchronous() -> Request:
    return request("bulk", {"X-Amzn-SageMaker-InputLocation": "s3://in/bundle.json"})
