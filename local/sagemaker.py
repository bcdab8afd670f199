"""A local emulator of the SageMaker runtime API, which also runs the model server as SageMaker runs a container.

    POST /endpoints/{name}/async-invocations   returns 202; writes the result to S3 and notifies SNS
    POST /endpoints/{name}/invocations         processes one request; a serverless endpoint waits for a start
    GET  /credentials                          credentials of the model's role, for the model server in strict mode
    GET, POST /control                         reads or changes the conditions that tests simulate, such as an outage
    GET  /instances                            instances, backlog and scaling activities of the asynchronous endpoints
    /ai                                        Rekognition and Bedrock (local/ai.py)
    /telegram                                  Telegram's Bot API (local/telegram.py)
    /console, /v1, /files                      the web console and what it calls (local/console.py)

The configuration of an endpoint (topics, S3 paths, concurrency, memory) comes from the file that the AWS emulator
writes when it deploys the template. The limits of SageMaker apply: size of a request, its time in the queue, its
duration, concurrent requests, and the memory of a serverless endpoint. Message formats: the SageMaker developer guide,
"Asynchronous inference".

    python -m local.sagemaker
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import uvicorn
from botocore.exceptions import BotoCoreError, ClientError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from local import ai, processes, telegram
from local.autoscaling import Target, targets
from local.config import HOST, REGION, LocalConfig
from local.connect import assume_role, client
from local.console import console_routes
from local.deploy import ACCOUNT
from local.instances import Instances
from local.model_server import (
    deployed_resources,
    execution_role,
    kill_when_out_of_memory,
    model_server,
    resource_name,
    restart_when_it_exits,
    serverless_config,
)
from maskdrop.errors import MaskdropError
from maskdrop.loopback import LocalOnly
from maskdrop.record import Record
from maskdrop.redaction import log_to_stderr
from maskdrop.wire import CUSTOM_ATTRIBUTES, split_s3_uri

QUEUE_MAX = 10_000
"""Maximum number of queued requests, of up to 64 images each. SageMaker publishes no limit of its queue."""

TTL_S = 21_600
TIMEOUT_S = 900
"""Defaults of SageMaker in seconds: time to live of a queued request, and timeout of the container."""

SYNC_TIMEOUT_S = 60
"""Timeout of SageMaker for the response to a synchronous request, in seconds."""

SERVERLESS_BYTES_MAX, REALTIME_BYTES_MAX = 4 * 1024 * 1024, 6 * 1024 * 1024
"""Maximum size of a synchronous request and of its response, in bytes."""

BUSY_S = 120
"""Seconds during which a request is retried while the container returns 503."""

SCALE_S, SCALE_MAX_S = 10, 0.5
"""Interval in simulated seconds at which instances become ready, and its maximum in real seconds. The policies are
evaluated once a simulated minute."""

NO_RESPONSE = 0
"""Status that SageMaker reports for a container that crashed or timed out."""

log = logging.getLogger("sagemaker")


@dataclass(frozen=True, slots=True)
class Conditions(Record):
    """Conditions that tests simulate.

    capacity: whether the endpoints have capacity. Without it, asynchronous requests are queued until they expire, and
        synchronous requests fail.
    deployed: whether the endpoints exist.
    ttl_s: maximum time to live of a queued asynchronous request, in seconds.
    response_s: timeout of a synchronous request, in seconds.
    time_lapse: how many times faster than real time the instances of asynchronous endpoints are started and stopped,
        by the scaling policies of the template. 0: each endpoint always has one instance.
    start_s, request_s: simulated time in seconds until a new instance processes requests, and of a request at least.
        Public reports name 5 to 10 minutes for a GPU instance.
    instances_max: maximum number of instances; 0: the one of the stage.
    """

    capacity: bool = True
    deployed: bool = True
    ttl_s: float = TTL_S
    response_s: float = SYNC_TIMEOUT_S
    time_lapse: float = 0
    start_s: float = 420
    request_s: float = 0
    instances_max: int = 0


class InvalidRequest(MaskdropError):
    """SageMaker rejects the request."""

    code, status = "ValidationError", 400


class PayloadTooLarge(MaskdropError):
    """The request exceeds the size limit of the endpoint."""

    code, status = "413", 413


class Throttled(MaskdropError):
    """The serverless endpoint already processes its maximum number of concurrent requests."""

    code, status = "ThrottlingException", 429


class NotReady(MaskdropError):
    """The resources of the serverless endpoint are not provisioned."""

    code, status = "ModelNotReadyException", 429


class ServiceUnavailable(MaskdropError):
    """The endpoint cannot take the request."""

    code, status = "ServiceUnavailable", 503


class ContainerError(MaskdropError):
    """The container failed, or did not respond in time."""

    code, status = "ModelError", 424


@dataclass(frozen=True, slots=True)
class Invocation:
    """One asynchronous request.

    input, output, failure: S3 URIs.
    received: time stamp in UTC, ISO 8601. received_at: time on the monotonic clock, in seconds.
    """

    id: str
    endpoint: str
    asynchronous: dict[str, Any]
    input: str
    headers: dict[str, str]
    output: str
    failure: str
    received: str
    received_at: float
    ttl_s: float
    timeout_s: float


class SageMaker:
    """The endpoints, all of which use one model server."""

    def __init__(self, config: LocalConfig, *, s3: Any, sns: Any, http: httpx2.AsyncClient) -> None:
        """s3, sns: clients of the AWS emulator. http: client of the model server."""
        self._config = config
        self._model = model_server(config)
        self._s3, self._sns, self._http = s3, sns, http
        self.conditions = Conditions()
        self._running: Counter[str] = Counter()  # requests that the container processes, by endpoint
        self._backlog: Counter[str] = Counter()  # asynchronous requests that are queued or processed, by endpoint
        self._instances: dict[str, Instances] = {}  # by endpoint, while a time lapse is simulated
        self._lapse_began = 0.0
        self._changed = asyncio.Condition()  # notified when `conditions`, `_running` or `_instances` change
        self.pending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        """Runs the model server for the lifetime of the application."""
        supervisors = [
            asyncio.create_task(supervise(self._model, self._config))
            for supervise in (restart_when_it_exits, kill_when_out_of_memory)
        ]
        supervisors.append(asyncio.create_task(self.scale()))
        try:
            yield
        finally:
            for task in (*supervisors, *self.pending):
                task.cancel()
            await asyncio.gather(*supervisors, *self.pending, return_exceptions=True)
            await self._http.aclose()
            await asyncio.to_thread(processes.stop, self._model.name, self._config.state)

    async def control(self, request: Request) -> Response:
        """Returns the conditions, after the changes in the body of a POST. Raises InvalidRequest."""
        if request.method == "POST":
            try:
                changes = await request.json()
                if unknown := set(changes) - set(self.conditions.to_json()):
                    raise InvalidRequest(f"There is no condition {', '.join(sorted(unknown))}.")
                self._change(Conditions.from_json({**self.conditions.to_json(), **changes}))
            except (ValueError, TypeError) as error:
                raise InvalidRequest(f"The body must be an object of conditions: {error}") from error
            await self._notify_waiting()
        return JSONResponse(self.conditions.to_json())

    def _change(self, conditions: Conditions) -> None:
        """Begins a new simulation of instances, at their minimum, when a condition of it changes."""
        simulated = ("time_lapse", "start_s", "instances_max")
        if any(getattr(conditions, name) != getattr(self.conditions, name) for name in simulated):
            self._lapse_began = time.monotonic()
            self._instances = {
                name: Instances(
                    replace(target, maximum=conditions.instances_max or target.maximum), start_s=conditions.start_s
                )
                for name, target in (self._targets() if conditions.time_lapse else {}).items()
            }
        self.conditions = conditions

    def _targets(self) -> dict[str, Target]:
        """Returns the scalable targets of the synthesized stage by endpoint."""
        templates = (self._config.cdk_out / f"{name}.template.json" for name in self._config.stacks)
        return {name: one for path in templates for name, one in targets(json.loads(path.read_text())).items()}

    async def scale(self) -> None:
        """Evaluates the scaling policies in simulated time, until it is cancelled."""
        while True:
            before = {name: one.ready for name, one in self._instances.items()}
            for name, instances in self._instances.items():
                instances.advance(self._lapsed_s(), self._backlog[name])
            if before != {name: one.ready for name, one in self._instances.items()}:
                await self._notify_waiting()
            await asyncio.sleep(min(SCALE_MAX_S, SCALE_S / (self.conditions.time_lapse or 1)))

    def _lapsed_s(self) -> float:
        """Returns the simulated time in seconds."""
        return (time.monotonic() - self._lapse_began) * self.conditions.time_lapse

    async def instances(self, _request: Request) -> Response:
        """Returns instances, backlog and scaling activities of the asynchronous endpoints, and the simulated time."""
        endpoints = {}
        for name in {*self._instances, *self._backlog}:
            simulated = self._instances.get(name)
            endpoints[name] = {
                "desired": simulated.desired if simulated else 1,
                "ready": simulated.ready if simulated else 1,
                "backlog": self._backlog[name],
                "running": self._running[name],
                "activities": [asdict(one) for one in simulated.activities] if simulated else [],
            }
        return JSONResponse({"now_s": self._lapsed_s(), "endpoints": endpoints})

    async def _notify_waiting(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- asynchronous ---

    async def invoke_async(self, request: Request) -> Response:
        """InvokeEndpointAsync: queues a request. Raises InvalidRequest."""
        name = request.path_params["name"]
        settings = self._endpoint(name)
        asynchronous = settings.get("AsyncInferenceConfig")
        if not asynchronous:
            raise InvalidRequest(f"Endpoint {name} is not asynchronous.")
        header = request.headers
        if not header.get("X-Amzn-SageMaker-InputLocation"):
            raise InvalidRequest("InputLocation is required.")
        if len(self.pending) >= QUEUE_MAX:
            return _error(503, "ServiceUnavailable", "The endpoint's queue is full.")
        output = asynchronous["OutputConfig"]
        result_id = str(uuid.uuid4())
        invocation = Invocation(
            id=header.get("X-Amzn-SageMaker-Inference-Id") or str(uuid.uuid4()),
            endpoint=name,
            asynchronous=asynchronous,
            input=header["X-Amzn-SageMaker-InputLocation"],
            headers=_to_container(request, "X-Amzn-SageMaker-Content-Type", "X-Amzn-SageMaker-Accept"),
            output=f"{output['S3OutputPath'].rstrip('/')}/{result_id}.out",
            failure=f"{(output.get('S3FailurePath') or output['S3OutputPath']).rstrip('/')}/{result_id}-error.out",
            received=_now(),
            received_at=time.monotonic(),
            ttl_s=float(header.get("X-Amzn-SageMaker-RequestTTLSeconds", TTL_S)),
            timeout_s=float(header.get("X-Amzn-SageMaker-InvocationTimeoutSeconds", TIMEOUT_S)),
        )
        self._backlog[name] += 1
        task = asyncio.create_task(self._process(invocation))
        self.pending.add(task)
        task.add_done_callback(self.pending.discard)
        return JSONResponse(
            {"InferenceId": invocation.id},
            202,
            headers={
                "X-Amzn-SageMaker-OutputLocation": invocation.output,
                "X-Amzn-SageMaker-FailureLocation": invocation.failure,
            },
        )

    async def _process(self, invocation: Invocation) -> None:
        """Processes one queued request and notifies SNS. Like SageMaker, it does not retry a failed request."""
        try:
            try:
                await self._until_its_turn(invocation)
                try:
                    content_type, _ = await asyncio.gather(self._invoke_container(invocation), self._request_s())
                finally:
                    self._running[invocation.endpoint] -= 1
                    await self._notify_waiting()
            except (ContainerError, ClientError, BotoCoreError) as error:
                log.warning("%s failed: %s", invocation.id, error)
                await self._write(invocation.failure, str(error).encode(), "text/plain")
                await self._notify(invocation, "ErrorTopic", failure=str(error))
            else:
                await self._notify(invocation, "SuccessTopic", content_type=content_type)
        except (ClientError, BotoCoreError):
            log.exception("could not notify the outcome of %s", invocation.id)
        finally:
            self._backlog[invocation.endpoint] -= 1

    async def _request_s(self) -> None:
        """Waits for the minimum duration of a request in simulated time."""
        if self.conditions.time_lapse:
            await asyncio.sleep(self.conditions.request_s / self.conditions.time_lapse)

    async def _until_its_turn(self, invocation: Invocation) -> None:
        """Returns when the endpoint has capacity and processes fewer requests than its concurrency, and counts the
        request as running. Raises ContainerError when the request expires.
        """
        concurrency = invocation.asynchronous.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", 1)
        async with self._changed:
            while (remaining := self._expires(invocation) - time.monotonic()) > 0:
                simulated = self._instances.get(invocation.endpoint)
                places = concurrency * (simulated.ready if simulated else 1)
                if self.conditions.capacity and self._running[invocation.endpoint] < places:
                    self._running[invocation.endpoint] += 1
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), remaining)
        raise ContainerError("The request expired in the queue.")

    def _expires(self, invocation: Invocation) -> float:
        """Returns the time on the monotonic clock at which a queued request expires."""
        return invocation.received_at + min(invocation.ttl_s, self.conditions.ttl_s)

    async def _invoke_container(self, invocation: Invocation) -> str:
        """Sends a request to the container and writes the response to S3. Returns its content type."""
        bucket, key = split_s3_uri(invocation.input)
        body = await asyncio.to_thread(lambda: self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        busy_until = None
        expires = self._expires(invocation)
        while True:
            await self._until_ready(expires)
            try:
                response = await self._http.post(
                    "/invocations", content=body, headers=invocation.headers, timeout=invocation.timeout_s
                )
            except httpx2.TransportError as error:
                raise ContainerError(f"The container broke the connection ({type(error).__name__}).") from error
            if response.status_code != 503:
                break
            busy_until = busy_until or time.monotonic() + BUSY_S
            if time.monotonic() > min(busy_until, expires):
                raise ContainerError(f"The container returned 503 for more than {BUSY_S} seconds.")
            await asyncio.sleep(_retry_after(response))
        if response.status_code != 200:
            raise ContainerError(f"The container returned {response.status_code}: {response.text[:500]}")
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        await self._write(invocation.output, response.content, content_type)
        return str(content_type)

    async def _until_ready(self, expires: float) -> None:
        """Returns when /ping returns 200, since SageMaker sends no requests to a container that is starting.

        Raises ContainerError after `expires`, a time on the monotonic clock in seconds.
        """
        while time.monotonic() < expires:
            try:
                if (await self._http.get("/ping", timeout=2)).status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # starting or restarting
            await asyncio.sleep(0.1)
        raise ContainerError("The request expired in the queue.")

    async def _write(self, uri: str, body: bytes, content_type: str) -> None:
        bucket, key = split_s3_uri(uri)
        await asyncio.to_thread(self._s3.put_object, Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    async def _notify(
        self, invocation: Invocation, topic: str, *, content_type: str | None = None, failure: str | None = None
    ) -> None:
        arn = invocation.asynchronous["OutputConfig"].get("NotificationConfig", {}).get(topic)
        if not arn:
            return
        message: dict[str, Any] = {
            "awsRegion": REGION,
            "eventTime": _now(),
            "receivedTime": invocation.received,
            "invocationStatus": "Failed" if failure else "Completed",
            "requestParameters": {
                "contentType": invocation.headers.get("Content-Type", "application/octet-stream"),
                "endpointName": invocation.endpoint,
                "inputLocation": invocation.input,
            },
            "inferenceId": invocation.id,
            "eventVersion": "1.0",
            "eventSource": "aws:sagemaker",
            "eventName": "InferenceResult",
        }
        if failure:
            message["failureReason"] = failure
        else:
            message["responseParameters"] = {"contentType": content_type, "outputLocation": invocation.output}
        await asyncio.to_thread(self._sns.publish, TopicArn=arn, Message=json.dumps(message))

    # --- synchronous ---

    async def invoke(self, request: Request) -> Response:
        """InvokeEndpoint: processes one request.

        Raises InvalidRequest, PayloadTooLarge, NotReady, ServiceUnavailable, Throttled and ContainerError.
        """
        name = request.path_params["name"]
        settings = self._endpoint(name)
        if settings.get("AsyncInferenceConfig"):
            raise InvalidRequest(f"Endpoint {name} is asynchronous and takes no synchronous requests.")
        serverless = serverless_config(settings)
        bytes_max = SERVERLESS_BYTES_MAX if serverless else REALTIME_BYTES_MAX
        body = await request.body()
        if len(body) > bytes_max:
            raise PayloadTooLarge(f"HTTP content length exceeded {bytes_max} bytes.")
        if not self.conditions.capacity:
            raise (NotReady if serverless else ServiceUnavailable)("The endpoint has no capacity.")
        if serverless and self._running[name] >= serverless["MaxConcurrency"]:
            raise Throttled(f"The endpoint processes {serverless['MaxConcurrency']} requests, its maximum.")
        self._running[name] += 1
        try:
            headers = _to_container(request, "Content-Type", "Accept")
            response = await self._invoke_sync(body, headers, cold=bool(serverless))
        finally:
            self._running[name] -= 1
        if len(response.content) > bytes_max:
            raise ContainerError(f"The container's response exceeded {bytes_max} bytes.")
        if response.status_code != 200:
            return _model_error(
                f"Received error {response.status_code} from the container.", response.status_code, response.text
            )
        names = [name for name in ("Content-Type", CUSTOM_ATTRIBUTES) if name in response.headers]
        headers = {name: response.headers[name] for name in names}
        return Response(response.content, headers={"x-Amzn-Invoked-Production-Variant": "local", **headers})

    async def _invoke_sync(self, body: bytes, headers: dict[str, str], *, cold: bool) -> httpx2.Response:
        """Returns the response of the container. cold: whether to wait for a container that is not running."""
        timeout_s = self.conditions.response_s
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return await self._http.post("/invocations", content=body, headers=headers, timeout=timeout_s)
            except httpx2.TimeoutException as error:
                raise ContainerError(f"The container did not respond within {timeout_s:g} seconds.") from error
            except httpx2.TransportError as error:
                if not (cold and isinstance(error, httpx2.ConnectError)):
                    raise ContainerError(f"The container broke the connection ({type(error).__name__}).") from error
            await self._until_ready(deadline)

    async def credentials(self, _request: Request) -> Response:
        """Returns credentials of the model's role in the format of the container credential provider of the AWS SDKs.

        The container requests new ones before they expire. Raises InvalidRequest when no model is deployed.
        """
        role = execution_role(self._config)
        if role is None:
            raise InvalidRequest("No model is deployed.")
        credentials = await asyncio.to_thread(assume_role, self._config, role)
        return JSONResponse(
            {
                "AccessKeyId": credentials["access_key"],
                "SecretAccessKey": credentials["secret_key"],
                "Token": credentials["token"],
                "Expiration": credentials["expiry_time"],
            }
        )

    def _endpoint(self, name: str) -> dict[str, Any]:
        """Returns the properties of an endpoint's configuration. Raises InvalidRequest for an unknown endpoint."""
        try:
            resources = deployed_resources(self._config) if self.conditions.deployed else {}
            config_name = resource_name(resources["AWS::SageMaker::Endpoint"][name]["EndpointConfigName"])
            settings: dict[str, Any] = resources["AWS::SageMaker::EndpointConfig"][config_name]
        except KeyError:
            raise InvalidRequest(f"Endpoint {name} of account 000000000000 not found.") from None
        return settings


def app(config: LocalConfig, transport: httpx2.AsyncBaseTransport | None = None) -> Starlette:
    """Returns the ASGI application. transport: sends the requests to the model server; None for plain HTTP."""
    http = httpx2.AsyncClient(base_url=config.model_url, trust_env=False, transport=transport)
    # SageMaker reads and writes S3 and publishes to SNS under the execution role of the model.
    role = partial(execution_role, config) if config.strict else None
    s3, sns = client(config, "s3", role=role), client(config, "sns", role=role)
    sagemaker = SageMaker(config, s3=s3, sns=sns, http=http)
    return Starlette(
        routes=[
            Route("/endpoints/{name}/async-invocations", sagemaker.invoke_async, methods=["POST"]),
            Route("/endpoints/{name}/invocations", sagemaker.invoke, methods=["POST"]),
            Route("/credentials", sagemaker.credentials),
            Route("/instances", sagemaker.instances),
            Route("/control", sagemaker.control, methods=["GET", "POST"]),
            Route("/ping", _ping),
            Mount("/ai", ai.app(config)),
            Mount("/telegram", telegram.app(config.ca_bundle)),
            *console_routes(config),
        ],
        exception_handlers={MaskdropError: _handle_error},
        lifespan=sagemaker.running,
        middleware=[
            Middleware(LocalOnly),
            *([Middleware(BaseHTTPMiddleware, dispatch=partial(_record, config.calls_file))] if role else []),
        ],
    )


async def _record(path: Path, request: Request, respond: RequestResponseEndpoint) -> Response:
    """Appends an invocation to the calls that the AWS emulator records in strict mode (local/emulator.py)."""
    _, found, rest = request.headers.get("Authorization", "").partition("Credential=")
    name = request.url.path.split("/")[2] if request.url.path.startswith("/endpoints/") else ""
    if found and name:
        action = "InvokeEndpointAsync" if "async" in request.url.path else "InvokeEndpoint"
        resource = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint/{name}"
        call = {"key": rest.split("/")[0], "action": f"sagemaker:{action}", "resource": resource}
        with path.open("a") as file:
            file.write(json.dumps(call) + "\n")
    return await respond(request)


async def _ping(_request: Request) -> Response:
    return Response()


async def _handle_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, MaskdropError):
        raise error
    log.warning("rejected: %s", error)
    if isinstance(error, ContainerError):
        return _model_error(error.message, NO_RESPONSE, error.message)
    return _error(error.status, error.code, error.message)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"Message": message}, status, headers={"x-amzn-errortype": code})


def _model_error(message: str, status: int, response: str) -> Response:
    """status, response: the container's status, or NO_RESPONSE, and its body."""
    body = {"Message": message, "OriginalStatusCode": status, "OriginalMessage": response}
    return JSONResponse(body, ContainerError.status, headers={"x-amzn-errortype": ContainerError.code})


def _to_container(request: Request, content_type: str, accept: str) -> dict[str, str]:
    """Returns the headers that SageMaker forwards to the container."""
    names = {"Content-Type": content_type, "Accept": accept, CUSTOM_ATTRIBUTES: CUSTOM_ATTRIBUTES}
    return {target: request.headers[source] for target, source in names.items() if source in request.headers}


def _retry_after(response: httpx2.Response) -> float:
    """Returns the Retry-After of the container in seconds, limited to 0.1 to 5."""
    try:
        return min(max(float(response.headers.get("Retry-After", "1")), 0.1), 5.0)
    except ValueError:
        return 1.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    log_to_stderr()
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    local = LocalConfig.from_env(os.environ)
    uvicorn.run(app(local), host=HOST, port=local.sagemaker_port, log_level="warning", timeout_graceful_shutdown=2)
