"""The endpoint for bundles: asynchronous, or serverless with a queue of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, ReadTimeoutError

from lambdas.adapters.errors import code_of, translated_errors
from maskdrop.errors import EndpointFailed, EndpointUnavailable
from maskdrop.services import Queue
from maskdrop.wire import BundleMessage

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

WAIT_S = 21_600
"""Maximum time of a bundle in the queue, in seconds: the maximum of SageMaker.

One GPU processes 432,000 images in that time, at 20 images per second. A bundle that expires is retried."""

INVOCATION_S = 900
"""Maximum time of the container for one bundle, in seconds: 64 images of 14 s."""

RESPONSE_S = 70
"""Read timeout of a serverless invocation in seconds: SageMaker ends it after 60 s, with an error response."""

BUSY = 503
"""Status with which the container refuses a bundle before it processes it."""


class SageMakerEndpoint:
    """Submits bundles to an asynchronous endpoint, which has a queue and notifies through SNS."""

    def __init__(self, client: SageMakerRuntimeClient, name: str) -> None:
        self._client, self._name = client, name

    def submit(self, bundle_id: str, input_uri: str) -> None:
        with translated_errors(EndpointUnavailable, "Submitting to the endpoint"):
            self._client.invoke_endpoint_async(
                EndpointName=self._name,
                InputLocation=input_uri,
                ContentType="application/json",
                InferenceId=bundle_id,
                RequestTTLSeconds=WAIT_S,
                InvocationTimeoutSeconds=INVOCATION_S,
            )


class QueuedEndpoint:
    """Submits bundles to the queue of a serverless endpoint, from which the function `invoke` sends them.

    clock: returns the current time.
    """

    def __init__(self, queue: Queue, clock: Callable[[], datetime]) -> None:
        self._queue, self._clock = queue, clock

    def submit(self, bundle_id: str, input_uri: str) -> None:
        expires_at = self._clock() + timedelta(seconds=WAIT_S)
        self._queue.send([BundleMessage(bundle=bundle_id, input=input_uri, expires_at=expires_at).to_body()])


class SageMakerServerless:
    """Invokes a serverless endpoint. client: has the read timeout RESPONSE_S and no retries."""

    def __init__(self, client: SageMakerRuntimeClient, name: str) -> None:
        self._client, self._name = client, name

    def invoke(self, bundle: bytes) -> bytes:
        with translated_errors(EndpointUnavailable, "Invoking the endpoint"):
            try:
                response = self._client.invoke_endpoint(
                    EndpointName=self._name, Body=bundle, ContentType="application/json"
                )
                return response["Body"].read()
            except ReadTimeoutError as error:
                raise EndpointFailed(f"The endpoint returned no response within {RESPONSE_S} s.") from error
            except ClientError as error:
                # SageMaker reports a crash, a lack of memory and its timeout as ModelError too.
                if code_of(error) == "ModelError" and error.response.get("OriginalStatusCode") != BUSY:
                    raise EndpointFailed(str(error.response["Error"].get("Message", "ModelError"))) from error
                raise
