"""Submits bundles to the asynchronous SageMaker endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambdas.adapters.errors import translated_errors
from maskdrop.errors import EndpointUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

WAIT_S = 21_600
"""Maximum time of a request in the endpoint's queue, in seconds: the maximum of SageMaker.

One GPU processes 432,000 images in that time, at 20 images per second. A bundle that expires is retried."""

INVOCATION_S = 900
"""Maximum time of the container for one bundle, in seconds: 64 images of 14 s."""


class SageMakerEndpoint:
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
