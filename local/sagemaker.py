"""A stand-in for SageMaker: keeps the model server running, as SageMaker keeps a container, and speaks its runtime.

    POST /endpoints/{name}/async-invocations   202; the answer goes to S3, word of it to SNS
    POST /endpoints/{name}/invocations         one image, now; a serverless endpoint waits for its container to start
    GET  /credentials                          keys of the model's role, for the model server in the strict mode

What an endpoint is (topics, folders of answers, how many requests at once) is read from the file that the emulator
writes when it deploys the template. Forms of the messages: the SageMaker developer guide, "Asynchronous inference".

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
from local.connect import assume, client
from local.processes import Program
from maskdrop.errors import MaskdropError
from maskdrop.wire import CUSTOM_ATTRIBUTES, split_s3_uri

QUEUE_MAX = 10_000
"""Requests that wait at most; 64 images each. SageMaker's own queue has no published limit."""

TTL_S = 21_600
TIMEOUT_S = 900
"""SageMaker's defaults: how long a request may wait, and how long the container may take for it."""

SYNC_TIMEOUT_S = 60
"""SageMaker gives a container 60 s for a synchronous request."""

SERVERLESS_BYTES_MAX, REALTIME_BYTES_MAX = 4 * 1024 * 1024, 6 * 1024 * 1024
"""What it takes and gives in one."""

BUSY_S = 120
"""How long a container that answers 503 is asked again."""

ALLOCATOR = {
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "67108864",
    "MALLOC_MMAP_THRESHOLD_": "16777216",
}
"""glibc's settings, as in the container, whose Dockerfile says why."""

log = logging.getLogger("sagemaker")


class Refused(MaskdropError):
    code, status = "ValidationError", 400


class TooLarge(MaskdropError):
    code, status = "413", 413


class Failed(MaskdropError):
    """The container did not answer a request as it should."""

    code, status = "ModelError", 424


@dataclass(frozen=True, slots=True)
class Invocation:
    """One asynchronous request. The times are of the monotonic clock, in seconds."""

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
    """The endpoints, and the one model server behind all of them."""

    def __init__(self, config: LocalConfig, *, s3: Any, sns: Any, http: httpx2.AsyncClient) -> None:
        """s3, sns: clients of the emulator. http: of the model server."""
        self._config = config
        self._model = model_server(config)
        self._s3, self._sns, self._http = s3, sns, http
        self._slots: dict[str, asyncio.Semaphore] = {}
        self.waiting: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        keeper = asyncio.create_task(self._keep_model())
        try:
            yield
        finally:
            for task in (keeper, *self.waiting):
                task.cancel()
            await asyncio.gather(keeper, *self.waiting, return_exceptions=True)
            await self._http.aclose()
            await asyncio.to_thread(processes.stop, self._model.name, self._config.state)

    async def _keep_model(self) -> None:
        """Starts the model server, and starts it again whenever it ends."""
        while True:
            # Strictly, a container starts when there is a model, whose role is its own.
            wanted = not self._config.strict or execution_role(self._config)
            if wanted and processes.find(self._model.name, self._config.state) is None:
                log.warning("starting the model server")
                try:
                    await asyncio.to_thread(processes.start, self._model, self._config.state)
                except MaskdropError as error:
                    log.error("%s", error)
                await asyncio.sleep(0.5)  # a server that dies at once is not started more than twice a second
            await asyncio.sleep(0.2)

    # --- asynchronous ---

    async def invoke_async(self, request: Request) -> Response:
        name = request.path_params["name"]
        settings = self._endpoint(name)
        asynchronous = settings.get("AsyncInferenceConfig")
        if not asynchronous:
            raise Refused(f"Endpoint {name} is not asynchronous.")
        header = request.headers
        if not header.get("X-Amzn-SageMaker-InputLocation"):
            raise Refused("InputLocation is required.")
        if len(self.waiting) >= QUEUE_MAX:
            return _error(503, "ServiceUnavailable", "The endpoint's queue is full.")
        paths = asynchronous["OutputConfig"]
        answer = str(uuid.uuid4())
        invocation = Invocation(
            id=header.get("X-Amzn-SageMaker-Inference-Id") or str(uuid.uuid4()),
            endpoint=name,
            asynchronous=asynchronous,
            input=header["X-Amzn-SageMaker-InputLocation"],
            headers=_to_container(request, "X-Amzn-SageMaker-Content-Type", "X-Amzn-SageMaker-Accept"),
            output=f"{paths['S3OutputPath'].rstrip('/')}/{answer}.out",
            failure=f"{(paths.get('S3FailurePath') or paths['S3OutputPath']).rstrip('/')}/{answer}-error.out",
            received=_now(),
            expires=time.monotonic() + float(header.get("X-Amzn-SageMaker-RequestTTLSeconds", TTL_S)),
            timeout_s=float(header.get("X-Amzn-SageMaker-InvocationTimeoutSeconds", TIMEOUT_S)),
        )
        task = asyncio.create_task(self._serve(invocation))
        self.waiting.add(task)
        task.add_done_callback(self.waiting.discard)
        return JSONResponse(
            {"InferenceId": invocation.id},
            202,
            headers={
                "X-Amzn-SageMaker-OutputLocation": invocation.output,
                "X-Amzn-SageMaker-FailureLocation": invocation.failure,
            },
        )

    async def _serve(self, invocation: Invocation) -> None:
        """One request from its place in the queue to the word on SNS. Like SageMaker, it is not tried twice."""
        at_once = invocation.asynchronous.get("ClientConfig", {}).get("MaxConcurrentInvocationsPerInstance", 1)
        slots = self._slots.setdefault(invocation.endpoint, asyncio.Semaphore(at_once))
        try:
            async with slots:
                try:
                    content_type = await self._answer(invocation)
                except (Failed, ClientError, BotoCoreError) as error:
                    log.warning("%s failed: %s", invocation.id, error)
                    await self._write(invocation.failure, str(error).encode(), "text/plain")
                    await self._tell(invocation, "ErrorTopic", failure=str(error))
                else:
                    await self._tell(invocation, "SuccessTopic", content_type=content_type)
        except (ClientError, BotoCoreError):
            log.exception("no word of %s could be given", invocation.id)

    async def _answer(self, invocation: Invocation) -> str:
        """Asks the container and writes what it says. Returns the answer's content type."""
        bucket, key = split_s3_uri(invocation.input)
        body = await asyncio.to_thread(lambda: self._s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        busy_until = None
        while True:
            await self._until_ready(invocation.expires)
            try:
                answer = await self._http.post(
                    "/invocations", content=body, headers=invocation.headers, timeout=invocation.timeout_s
                )
            except httpx2.TransportError as error:
                raise Failed(f"The container broke the connection ({type(error).__name__}).") from error
            if answer.status_code != 503:
                break
            busy_until = busy_until or time.monotonic() + BUSY_S
            if time.monotonic() > min(busy_until, invocation.expires):
                raise Failed("The container stayed too busy.")
            await asyncio.sleep(_retry_after(answer))
        if answer.status_code != 200:
            raise Failed(f"The container answered {answer.status_code}: {answer.text[:500]}")
        content_type = answer.headers.get("Content-Type", "application/octet-stream")
        await self._write(invocation.output, answer.content, content_type)
        return str(content_type)

    async def _until_ready(self, expires: float) -> None:
        """Returns when /ping answers 200: SageMaker sends nothing to a container that starts."""
        while time.monotonic() < expires:
            try:
                if (await self._http.get("/ping", timeout=2)).status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # it starts, or starts again
            await asyncio.sleep(0.1)
        raise Failed("The request expired in the queue.")

    async def _write(self, uri: str, body: bytes, content_type: str) -> None:
        bucket, key = split_s3_uri(uri)
        await asyncio.to_thread(self._s3.put_object, Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    async def _tell(
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
        name = request.path_params["name"]
        settings = self._endpoint(name)
        if settings.get("AsyncInferenceConfig"):
            raise Refused(f"Endpoint {name} is asynchronous and takes no synchronous requests.")
        serverless = any("ServerlessConfig" in one for one in settings.get("ProductionVariants", ()))
        bytes_max = SERVERLESS_BYTES_MAX if serverless else REALTIME_BYTES_MAX
        body = await request.body()
        if len(body) > bytes_max:
            raise TooLarge(f"HTTP content length exceeded {bytes_max} bytes.")
        answer = await self._ask(body, _to_container(request, "Content-Type", "Accept"), cold=serverless)
        if len(answer.content) > bytes_max:
            raise Failed(f"The container's answer exceeded {bytes_max} bytes.")
        if answer.status_code != 200:
            return JSONResponse(
                {
                    "Message": f"Received error {answer.status_code} from the container.",
                    "OriginalMessage": answer.text,
                    "OriginalStatusCode": answer.status_code,
                },
                424,
                headers={"x-amzn-errortype": "ModelError"},
            )
        kept = {name: answer.headers[name] for name in ("Content-Type", CUSTOM_ATTRIBUTES) if name in answer.headers}
        return Response(answer.content, headers={"x-Amzn-Invoked-Production-Variant": "local", **kept})

    async def _ask(self, body: bytes, headers: dict[str, str], *, cold: bool) -> httpx2.Response:
        """The container's answer. cold: one that does not run is waited for."""
        latest = time.monotonic() + SYNC_TIMEOUT_S
        while True:
            try:
                return await self._http.post("/invocations", content=body, headers=headers, timeout=SYNC_TIMEOUT_S)
            except httpx2.TransportError as error:
                if not (cold and isinstance(error, httpx2.ConnectError)):
                    raise Failed(f"The container broke the connection ({type(error).__name__}).") from error
            await self._until_ready(latest)

    async def credentials(self, _request: Request) -> Response:
        """Keys of the model's role for its container, which asks again before they expire. The form is that of the AWS
        SDKs' "container credential provider"."""
        role = execution_role(self._config)
        if role is None:
            raise Refused("There is no model.")
        keys = await asyncio.to_thread(assume, self._config, role)
        return JSONResponse(
            {
                "AccessKeyId": keys["access_key"],
                "SecretAccessKey": keys["secret_key"],
                "Token": keys["token"],
                "Expiration": keys["expiry_time"],
            }
        )

    def _endpoint(self, name: str) -> dict[str, Any]:
        """The properties of an endpoint's configuration. Raises Refused when there is no such endpoint."""
        try:
            resources = _resources(self._config)
            chosen = resources["AWS::SageMaker::Endpoint"][name]["EndpointConfigName"].rpartition("/")[2]
            settings: dict[str, Any] = resources["AWS::SageMaker::EndpointConfig"][chosen]
        except KeyError:
            raise Refused(f"Endpoint {name} of account 000000000000 not found.") from None
        return settings


def execution_role(config: LocalConfig) -> str | None:
    """The ARN of the role of the asynchronous endpoint's model; None before it is deployed. The one model server works
    for both endpoints, and what the other's may do is a part of what this one may."""
    resources = _resources(config)
    for settings in resources.get("AWS::SageMaker::EndpointConfig", {}).values():
        if "AsyncInferenceConfig" in settings:
            name = settings["ProductionVariants"][0]["ModelName"]
            return str(resources["AWS::SageMaker::Model"][name]["ExecutionRoleArn"])
    return None


def _resources(config: LocalConfig) -> dict[str, dict[str, dict[str, Any]]]:
    """{resource type: {name: properties}}; empty before the first deployment."""
    try:
        found: dict[str, dict[str, dict[str, Any]]] = json.loads(config.sagemaker_file.read_text())
    except FileNotFoundError:
        return {}
    return found


def model_server(config: LocalConfig) -> Program:
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
            **_identity(config),
        },
    )


def _identity(config: LocalConfig) -> dict[str, str]:
    """In whose name the model server acts: strictly in that of its role, with keys that it fetches as in SageMaker."""
    if config.ca_bundle is None:
        return {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    return {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{config.sagemaker_url}/credentials",
        "AWS_CA_BUNDLE": str(config.ca_bundle),
    }


def app(config: LocalConfig) -> Starlette:
    http = httpx2.AsyncClient(base_url=config.model_url, trust_env=False)
    # SageMaker itself reads and writes S3, and publishes, under the role of the model.
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
        exception_handlers={MaskdropError: _refusal},
        lifespan=sagemaker.running,
    )


async def _ping(_request: Request) -> Response:
    return Response()


async def _refusal(_request: Request, error: Exception) -> Response:
    if not isinstance(error, MaskdropError):
        raise error
    log.warning("refused: %s", error)
    return _error(error.status, error.code, error.message)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"Message": message}, status, headers={"x-amzn-errortype": code})


def _to_container(request: Request, content_type: str, accept: str) -> dict[str, str]:
    """The headers that SageMaker hands on to the container."""
    names = {"Content-Type": content_type, "Accept": accept, CUSTOM_ATTRIBUTES: CUSTOM_ATTRIBUTES}
    return {theirs: request.headers[ours] for theirs, ours in names.items() if ours in request.headers}


def _retry_after(answer: httpx2.Response) -> float:
    """Seconds to wait before asking again: what the container says, between 0.1 and 5."""
    try:
        return min(max(float(answer.headers.get("Retry-After", "1")), 0.1), 5.0)
    except ValueError:
        return 1.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    local = LocalConfig.from_env(os.environ)
    uvicorn.run(app(local), host=HOST, port=local.sagemaker_port, log_level="warning", timeout_graceful_shutdown=2)
