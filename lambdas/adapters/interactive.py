"""Invokes the interactive SageMaker endpoint: one image per request, its result in the response."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError, ReadTimeoutError

from lambdas.adapters.errors import code_of, translated_errors
from maskdrop.errors import EndpointStarting, EndpointUnavailable, ErrorInfo, MaskdropError, error_of
from maskdrop.job import Result, ResultItem
from maskdrop.wire import Facts, ImageResponse, Invocation

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient
    from mypy_boto3_sagemaker_runtime.type_defs import InvokeEndpointOutputTypeDef

WAIT_S = 25
"""Read timeout of the client in seconds, including a cold start; there are no retries.

API Gateway waits for 29 s: the remaining time is for creating a job instead."""


class SageMakerInteractive:
    """client: has the read timeout WAIT_S and no retries."""

    def __init__(self, client: SageMakerRuntimeClient, name: str) -> None:
        self._client, self._name = client, name

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        body, response = self._invoke(image, "application/octet-stream", CustomAttributes=invocation.to_header())
        facts, content_type = Facts.from_header(response["CustomAttributes"]), response["ContentType"]
        if content_type == "application/json" and invocation.options.task != "detect":
            data = json.loads(body)
            results = tuple(ResultItem.from_json(one) for one in data.get("results", ()))
            return ImageResponse(facts, content_type, Result.from_json(data["result"]), results)
        return ImageResponse(facts, content_type, body)

    def segment_box(self, request: bytes) -> bytes:
        return self._invoke(request, "application/json")[0]

    def _invoke(self, body: bytes, content_type: str, **attributes: Any) -> tuple[bytes, InvokeEndpointOutputTypeDef]:
        """Returns the body of the response, and the response. attributes: further parameters of InvokeEndpoint."""
        with translated_errors(EndpointUnavailable, "Invoking the endpoint"):
            try:
                response = self._client.invoke_endpoint(
                    EndpointName=self._name, Body=body, ContentType=content_type, **attributes
                )
                return response["Body"].read(), response
            except ReadTimeoutError as error:
                raise EndpointStarting(
                    f"The endpoint is starting: no response within {WAIT_S} s. Retry later."
                ) from error
            except ClientError as error:
                if code_of(error) == "ModelNotReadyException":
                    raise EndpointStarting("The endpoint is starting. Retry later.") from error
                if code_of(error) == "ValidationError" and "not found" in str(error):
                    raise EndpointStarting("The endpoint does not exist yet. Retry later.") from error
                if code_of(error) == "ModelError":
                    raise _container_error(error) from error
                raise


def _container_error(error: ClientError) -> MaskdropError:
    """Returns the error in the container's response; EndpointUnavailable if the response has no valid error."""
    try:
        payload = json.loads(str(error.response.get("OriginalMessage")))
        return error_of(ErrorInfo.from_json(payload["error"]))
    except (ValueError, KeyError, TypeError):
        return EndpointUnavailable("The container of the endpoint failed without an error message.")
