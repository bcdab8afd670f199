"""A stub of the SageMaker API on 127.0.0.1. It checks requests and responses by botocore's model of the service."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import botocore.session
from botocore.model import Shape
from botocore.validate import ParamValidator

ARN = "arn:aws:sagemaker:eu-west-1:123456789012"
CREATED = datetime(2026, 1, 1, tzinfo=UTC)


class Call(NamedTuple):
    """A request that the stub accepted: operation of the API and its parameters."""

    operation: str
    parameters: dict[str, Any]


class SageMakerApi:
    """Creates and describes training and tuning jobs. Other operations, and parameters that botocore's model of
    SageMaker does not accept, are refused with ValidationException.

    errors: error codes and messages to return, by operation. It also serves as an HTTP proxy that refuses every
    request: `others` has the method and URL of requests to other services and hosts.
    """

    def __init__(self, errors: Mapping[str, tuple[str, str]] | None = None) -> None:
        self.errors = errors or {}
        self.calls: list[Call] = []
        self.others: list[str] = []
        self._model = botocore.session.Session().get_service_model("sagemaker")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SageMakerApi:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """Environment variables that send every request of a process to the stub."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.url),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
        }

    def requests(self, operation: str) -> list[dict[str, Any]]:
        """Returns the parameters of the accepted requests of an operation."""
        return [call.parameters for call in self.calls if call.operation == operation]

    def respond(self, operation: str, parameters: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Returns the status code and the body."""
        if operation in self.errors:
            code, message = self.errors[operation]
            return 400, {"__type": code, "message": message}
        model = self._model.operation_model(operation)
        if faults := _faults(parameters, model.input_shape):
            return 400, {"__type": "ValidationException", "message": faults}
        if Call(operation, parameters) in self.calls and operation.startswith("Create"):
            return 400, {"__type": "ResourceInUse", "message": "The name of the job exists."}
        self.calls.append(Call(operation, parameters))
        response = self._response(operation, parameters)
        faults = _faults(response, model.output_shape)
        assert not faults, faults
        return 200, response

    def _response(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if operation == "CreateTrainingJob":
            return {"TrainingJobArn": f"{ARN}:training-job/{parameters['TrainingJobName']}"}
        if operation == "CreateHyperParameterTuningJob":
            name = parameters["HyperParameterTuningJobName"]
            return {"HyperParameterTuningJobArn": f"{ARN}:hyper-parameter-tuning-job/{name}"}
        if operation == "DescribeTrainingJob":
            created = self._created("CreateTrainingJob", "TrainingJobName", parameters)
            shared = ("TrainingJobName", "AlgorithmSpecification", "StoppingCondition", "ResourceConfig")
            return {
                **{name: created[name] for name in shared},
                "TrainingJobArn": f"{ARN}:training-job/{created['TrainingJobName']}",
                "ModelArtifacts": {"S3ModelArtifacts": created["OutputDataConfig"]["S3OutputPath"]},
                "TrainingJobStatus": "InProgress",
                "SecondaryStatus": "Starting",
                "CreationTime": CREATED,
            }
        assert operation == "DescribeHyperParameterTuningJob", operation
        created = self._created("CreateHyperParameterTuningJob", "HyperParameterTuningJobName", parameters)
        name = created["HyperParameterTuningJobName"]
        return {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobArn": f"{ARN}:hyper-parameter-tuning-job/{name}",
            "HyperParameterTuningJobConfig": created["HyperParameterTuningJobConfig"],
            "HyperParameterTuningJobStatus": "InProgress",
            "CreationTime": CREATED,
            "TrainingJobStatusCounters": {},
            "ObjectiveStatusCounters": {},
        }

    def _created(self, operation: str, key: str, parameters: dict[str, Any]) -> dict[str, Any]:
        (created,) = [each for each in self.requests(operation) if each[key] == parameters[key]]
        return created

    def _handler(api) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler
        class Handler(BaseHTTPRequestHandler):
            def handle_request(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                service, _, operation = self.headers.get("X-Amz-Target", "").partition(".")
                if service == "SageMaker" and self.headers["Content-Type"] == "application/x-amz-json-1.1":
                    status, response = api.respond(operation, json.loads(body))
                else:
                    api.others.append(f"{self.command} {self.path}")
                    status, response = 400, {"__type": "UnknownOperationException", "message": self.path}
                content = json.dumps(response, default=datetime.timestamp).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/x-amz-json-1.1")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = do_CONNECT = handle_request  # noqa: N815 - names of the base class

            def log_message(self, *_: object) -> None:
                """Logs to no file."""

        return Handler


def _faults(parameters: dict[str, Any], shape: Shape | None) -> str:
    """Returns the faults that botocore finds; empty if the parameters are valid."""
    assert shape is not None
    return str(ParamValidator().validate(parameters, shape).generate_report())
