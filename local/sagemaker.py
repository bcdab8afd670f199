"""A local emulator of the SageMaker runtime API, which also runs the model server as SageMaker runs a container.

    POST /endpoints/{name}/async-invocations   returns 202; writes the result to S3 and notifies SNS
    POST /endpoints/{name}/invocations         processes one image; a serverless endpoint waits for a start
    GET  /credentials                          credentials of the model's role, for the model server in strict mode

The configuration of an endpoint (topics, S3 paths, concurrency) comes from the file that the AWS emulator writes when
it deploys the template. Message formats: the SageMaker developer guide, "Asynchronous inference".

    python -m local.sagemaker
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import httpx2
import uvicorn
from botocore.exceptions import BotoCoreError, ClientError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from local import processes
from local.config import HOST, KEY_ID, MODEL_PORT, REGION, SECRET, LocalConfig
from local.connect import assume_role, client
from local.processes import Program
from maskdrop.errors import MaskdropError
from maskdrop.wire import CUSTOM_ATTRIBUTES, split_s3_uri

QUEUE_MAX = 10_000
"""Maximum number of queued requests, of up to 64 images each. SageMaker publishes no limit of its queue."""

TTL_S = 21_600
TIMEOUT_S = 900
"""Defaults of SageMaker in seconds: time to live of a queued request, and timeout of the container."""

SYNC_TIMEOUT_S = 60
"""Timeout of SageMaker for a synchronous request, in seconds."""

SERVERLESS_BYTES_MAX, REALTIME_BYTES_MAX = 4 * 1024 * 1024, 6 * 1024 * 1024
"""Maximum size of a synchronous request and of its response, in bytes."""

BUSY_S = 120
"""Seconds during which a request is retried while the container returns 503."""

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "16777216",
}
"""glibc allocator settings of the container; its Dockerfile explains them."""

log = logging.getLogger("sagemaker")


class InvalidRequest(MaskdropError):
    """SageMaker rejects the request."""

    code, status = "ValidationError", 400


class PayloadTooLarge(MaskdropError):
    """The request exceeds the size limit of the endpoint."""

    code, status = "413", 413


class ContainerError(MaskdropError):
    """The container failed or returned an invalid response."""

    code, status = "ModelError", 424


@dataclass(frozen=True, slots=True)
class Invocation:
    """One asynchronous request.

    input, output, failure: S3 URIs.
    expires: time on the monotonic clock, in seconds. received: time stamp in UTC, ISO 8601.
    """

    id: str
    endpoint: str
    asynchronous: dict[str, Any]
    input: str
    headers: dict[str, str]
    output: str
    failure: str
    received: str
    expires: float
    timeout_s: float


class SageMaker:
    """The endpoints, all of which use one model server."""

    def __init__(self, config: LocalConfig, *, s3: Any, sns: Any, http: httpx2.AsyncClient) -> None:
        """s3, sns: clients of the AWS emulator. http: client of the model server."""
        self._config = config
        self._model = model_server(config)
        self._s3, self._sns, self._http = s3, sns, http
        self._slots: dict[str, asyncio.Semaphore] = {}
        self.pending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        """Runs the model server for the lifetime of the application."""
        supervisor = asyncio.create_task(self._supervise_model_server())
        try:
            yield
        finally:
            for task in (supervisor, *self.pending):
                task.cancel()
            await asyncio.gather(supervisor, *self.pending, return_exceptions=True)
            await self._http.aclose()
            await asyncio.to_thread(processes.stop, self._model.name, self._config.state)

    async def _supervise_model_server(self) -> None:
        """Starts the model server and restarts it whenever it exits."""
        while True:
            # In strict mode, the container starts once the model is deployed, since it needs the role of the model.
            needed = not self._config.strict or execution_role(self._config)
            if needed and processes.find(self._model.name, self._config.state) is None:
                log.warning("starting the model server")
                try:
                    await asyncio.to_thread(processes.start, self._model, self._config.state)
                except MaskdropError as error:
                    log.error("%s", error)
                await asyncio.sleep(0.5)  # restarts a crashing server at most twice a second
            await asyncio.sleep(0.2)

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
            expires=time.monotonic() + float(header.get("X-Amzn-SageMaker-RequestTTLSeconds", TTL_S)),
            timeout_s=float(header.get("X-Amzn-SageMaker-InvocationTimeoutSeconds", TIMEOUT_S)),
        )
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
        concurrency = invocation.asynchronous.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", 1)
        slots = self._slots.setdefault(invocation.endpoint, asyncio.Semaphore(concurrency))
        try:
            async with slots:
                try:
                    content_type = await self._invoke_container(invocation)
                except (ContainerError, ClientError, BotoCoreError) as error:
                    log.warning("%s failed: %s", invocation.id, error)
                    await self._write(invocation.failure, str(error).encode(), "text/plain")
                    await self._notify(invocation, "ErrorTopic", failure=str(error))
                else:
                    await self._notify(invocation, "SuccessTopic", content_type=content_type)
        except (ClientError, BotoCoreError):
            log.exception("could not notify the outcome of %s", invocation.id)

    async def _invoke_container(self, invocation: Invocation) -> str:
        """Sends a request to the container and writes the response to S3. Returns its content type."""
        bucket, key = split_s3_uri(invocation.input)
        body = await asyncio.to_thread(lambda: self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        busy_until = None
        while True:
            await self._until_ready(invocation.expires)
            try:
                response = await self._http.post(
                    "/invocations", content=body, headers=invocation.headers, timeout=invocation.timeout_s
                )
            except httpx2.TransportError as error:
                raise ContainerError(f"The container broke the connection ({type(error).__name__}).") from error
            if response.status_code != 503:
                break
            busy_until = busy_until or time.monotonic() + BUSY_S
            if time.monotonic() > min(busy_until, invocation.expires):
                raise ContainerError(f"The container returned 503 for more than {BUSY_S} seconds.")
            await asyncio.sleep(_retry_after(response))
        if response.status_code != 200:
            raise ContainerError(f"The container returned {response.status_code}: {response.text[:500]}")
        content_type = response.headers.get("Content-Type", "application/octet-stream")
        await self._write(invocation.output, response.content, content_type)
        return str(content_type)

    async def _until_ready(self, expires: float) -> None:
        """Returns when /ping returns 200, since SageMaker sends no requests to a container that is starting.

        Raises ContainerError after `expires`, a time on the monotonic clock.
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
        """InvokeEndpoint: processes one request. Raises InvalidRequest, PayloadTooLarge and ContainerError."""
        name = request.path_params["name"]
        settings = self._endpoint(name)
        if settings.get("AsyncInferenceConfig"):
            raise InvalidRequest(f"Endpoint {name} is asynchronous and takes no synchronous requests.")
        serverless = any("ServerlessConfig" in one for one in settings.get("ProductionVariants", ()))
        bytes_max = SERVERLESS_BYTES_MAX if serverless else REALTIME_BYTES_MAX
        body = await request.body()
        if len(body) > bytes_max:
            raise PayloadTooLarge(f"HTTP content length exceeded {bytes_max} bytes.")
        response = await self._invoke_sync(body, _to_container(request, "Content-Type", "Accept"), cold=serverless)
        if len(response.content) > bytes_max:
            raise ContainerError(f"The container's response exceeded {bytes_max} bytes.")
        if response.status_code != 200:
            return JSONResponse(
                {
                    "Message": f"Received error {response.status_code} from the container.",
                    "OriginalMessage": response.text,
                    "OriginalStatusCode": response.status_code,
                },
                424,
                headers={"x-amzn-errortype": "ModelError"},
            )
        names = [name for name in ("Content-Type", CUSTOM_ATTRIBUTES) if name in response.headers]
        headers = {name: response.headers[name] for name in names}
        return Response(response.content, headers={"x-Amzn-Invoked-Production-Variant": "local", **headers})

    async def _invoke_sync(self, body: bytes, headers: dict[str, str], *, cold: bool) -> httpx2.Response:
        """Returns the response of the container. cold: whether to wait for a container that is not running."""
        deadline = time.monotonic() + SYNC_TIMEOUT_S
        while True:
            try:
                return await self._http.post("/invocations", content=body, headers=headers, timeout=SYNC_TIMEOUT_S)
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
            resources = _resources(self._config)
            config_name = resources["AWS::SageMaker::Endpoint"][name]["EndpointConfigName"].rpartition("/")[2]
            settings: dict[str, Any] = resources["AWS::SageMaker::EndpointConfig"][config_name]
        except KeyError:
            raise InvalidRequest(f"Endpoint {name} of account 000000000000 not found.") from None
        return settings


def execution_role(config: LocalConfig) -> str | None:
    """Returns the ARN of the execution role of the asynchronous endpoint's model; None before it is deployed.

    One model server serves both endpoints. The permissions of the other endpoint's role are a subset of this one's.
    """
    resources = _resources(config)
    for settings in resources.get("AWS::SageMaker::EndpointConfig", {}).values():
        if "AsyncInferenceConfig" in settings:
            name = settings["ProductionVariants"][0]["ModelName"]
            return str(resources["AWS::SageMaker::Model"][name]["ExecutionRoleArn"])
    return None


def _resources(config: LocalConfig) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns {resource type: {name: properties}}; empty before the first deployment."""
    try:
        resources: dict[str, dict[str, dict[str, Any]]] = json.loads(config.sagemaker_file.read_text())
    except FileNotFoundError:
        return {}
    return resources


def model_server(config: LocalConfig) -> Program:
    """Returns the model server as a program; the SageMaker emulator starts it."""
    return Program(
        name="model",
        title="the model server",
        argv=(sys.executable, "-m", "sagemaker_model", "serve"),
        port=config.model_port,
        port_setting=MODEL_PORT,
        health="/ping",
        env={
            "MODEL_HOST": HOST,
            "MODEL_PORT": str(config.model_port),
            "MODEL_WEIGHTS_DIR": str(config.weights),
            **ALLOCATOR,
            "MODEL_DRAIN_S": "8",  # within processes.GRACE_S
            "AWS_ENDPOINT_URL": config.endpoint_url,
            "AWS_DEFAULT_REGION": REGION,
            **_credentials_env(config),
        },
    )


def _credentials_env(config: LocalConfig) -> dict[str, str]:
    """Returns the credential variables of the model server. In strict mode, it fetches credentials of its role."""
    if config.ca_bundle is None:
        return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{config.sagemaker_url}/credentials",
        "AWS_CA_BUNDLE": str(config.ca_bundle),
    }


def app(config: LocalConfig) -> Starlette:
    """Returns the ASGI application."""
    http = httpx2.AsyncClient(base_url=config.model_url, trust_env=False)
    # SageMaker reads and writes S3 and publishes to SNS under the execution role of the model.
    role = partial(execution_role, config) if config.strict else None
    s3, sns = client(config, "s3", role=role), client(config, "sns", role=role)
    sagemaker = SageMaker(config, s3=s3, sns=sns, http=http)
    return Starlette(
        routes=[
            Route("/endpoints/{name}/async-invocations", sagemaker.invoke_async, methods=["POST"]),
            Route("/endpoints/{name}/invocations", sagemaker.invoke, methods=["POST"]),
            Route("/credentials", sagemaker.credentials),
            Route("/ping", _ping),
        ],
        exception_handlers={MaskdropError: _handle_error},
        lifespan=sagemaker.running,
    )


async def _ping(_request: Request) -> Response:
    return Response()


async def _handle_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, MaskdropError):
        raise error
    log.warning("rejected: %s", error)
    return _error(error.status, error.code, error.message)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"Message": message}, status, headers={"x-amzn-errortype": code})


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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    local = LocalConfig.from_env(os.environ)
    uvicorn.run(app(local), host=HOST, port=local.sagemaker_port, log_level="warning", timeout_graceful_shutdown=2)
