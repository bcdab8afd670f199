"""The asynchronous endpoint in SageMaker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lambdas.adapters.border import as_error
from maskdrop.errors import EndpointUnavailable

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

WAIT_S = 21_600
"""How long a bundle may wait in the endpoint's own queue: SageMaker's most. One GPU at 20 images a second works
432,000 in that time; what has not come up by then is sent round again."""

INVOCATION_S = 900
"""How long the container may take for a bundle: 64 images of 14 s."""


class SageMakerEndpoint:
    def __init__(self, client: SageMakerRuntimeClient, name: str) -> None:
        self._client, self._name = client, name

    def submit(self, bundle_id: str, input_uri: str) -> None:
        with as_error(EndpointUnavailable, "Submitting to the endpoint"):
            self._client.invoke_endpoint_async(
                EndpointName=self._name,
                InputLocation=input_uri,
                ContentType="application/json",
                InferenceId=bundle_id,
                RequestTTLSeconds=WAIT_S,
                InvocationTimeoutSeconds=INVOCATION_S,
            )
