"""The interactive endpoint in SageMaker: one image, and its result as the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError, ReadTimeoutError

from lambdas.adapters.border import as_error, code_of
from maskdrop.errors import EndpointStarting, EndpointUnavailable, ErrorInfo, MaskdropError, error_of
from maskdrop.job import Result
from maskdrop.wire import Facts, Invocation, Reply

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

WAIT_S = 25
"""How long the client waits for an answer, a cold start with it, and never twice. API Gateway waits for 29 s: the rest
is for making a job of the image."""


class SageMakerInteractive:
    """client: with WAIT_S as its read timeout, and without repetitions."""

    def __init__(self, client: SageMakerRuntimeClient, name: str) -> None:
        self._client, self._name = client, name

    def cut_out(self, picture: bytes, asked: Invocation) -> Reply:
        with as_error(EndpointUnavailable, "Asking the endpoint"):
            try:
                answer = self._client.invoke_endpoint(
                    EndpointName=self._name,
                    Body=picture,
                    ContentType="application/octet-stream",
                    CustomAttributes=asked.to_header(),
                )
                body = answer["Body"].read()
            except ReadTimeoutError as error:
                raise EndpointStarting("The endpoint gave no answer in time: it is starting.") from error
            except ClientError as error:
                if code_of(error) == "ModelNotReadyException":
                    raise EndpointStarting("The endpoint is being set up.") from error
                if code_of(error) == "ModelError":
                    raise _of_the_container(error) from error
                raise
        facts, content_type = Facts.from_header(answer["CustomAttributes"]), answer["ContentType"]
        if content_type == "application/json":
            return Reply(facts, content_type, Result.from_json(json.loads(body)["result"]))
        return Reply(facts, content_type, body)


def _of_the_container(error: ClientError) -> MaskdropError:
    """What the container said was wrong. Where it said nothing that is ours, it broke down."""
    try:
        said = json.loads(str(error.response.get("OriginalMessage")))
        return error_of(ErrorInfo.from_json(said["error"]))
    except (ValueError, KeyError, TypeError):
        return EndpointUnavailable("The container of the endpoint broke down.")
