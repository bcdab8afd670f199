"""The wire form of an operation of AWS, for a service: requests to parameters, results to responses.

Both ways are validated by botocore's service models, which also hold the limits of every member. AWS ignores unknown
members of a request; this module rejects them, so that a misspelt member is found here.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ListShape, OperationModel, Shape, StructureShape
from botocore.validate import ParamValidator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

JSON_1_1 = "application/x-amz-json-1.1"


class ServiceError(Exception):
    """The service rejects the request. code: name of the error in the service's model, such as ThrottlingException."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class InvalidResult(Exception):
    """The emulator built a result that the service's model does not allow: an error of the emulator."""


@cache
def operation(service: str, name: str) -> OperationModel:
    """Returns the model of an operation."""
    return botocore.session.get_session().get_service_model(service).operation_model(name)


async def parameters(model: OperationModel, request: Request) -> dict[str, Any]:
    """Returns the parameters of a request as boto3 names them. Raises ServiceError for a request that does not match
    the input shape."""
    body = await request.body()
    shape = _structure(model.input_shape)
    payload = shape.serialization.get("payload")
    sources: dict[str, Mapping[str, Any]] = {
        "uri": request.path_params,
        "querystring": request.query_params,
        "header": request.headers,
    }
    found: dict[str, Any] = {}
    members = dict(shape.members)
    for name, member in shape.members.items():
        place, key = member.serialization.get("location"), member.serialization.get("name", name)
        if place:
            members.pop(name)
            if key in sources[place]:
                found[name] = sources[place][key]
    if payload:
        found[payload] = body
    elif members and body:
        try:
            found |= _read(json.loads(body), shape)
        except (ValueError, TypeError, AttributeError) as error:
            message = f"The body is not the JSON of the operation: {error}"
            raise ServiceError("ValidationException", message) from None
    if wrong := list(faults(found, shape)):
        noun = "error" if len(wrong) == 1 else "errors"
        raise ServiceError("ValidationException", f"{len(wrong)} validation {noun} detected: {'; '.join(wrong)}")
    return found


def response(model: OperationModel, result: dict[str, Any]) -> Response:
    """Returns the response for a result as boto3 names it. Raises InvalidResult unless the output shape allows it."""
    shape = _structure(model.output_shape)
    if wrong := list(faults(result, shape)):
        raise InvalidResult(f"{model.name}: {'; '.join(wrong)}")
    headers = {
        member.serialization["name"]: result[name]
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header" and name in result
    }
    if payload := shape.serialization.get("payload"):
        return Response(result[payload], headers=headers)
    media_type = JSON_1_1 if model.service_model.metadata["protocol"] == "json" else "application/json"
    return Response(json.dumps(_written(result)), headers=headers, media_type=media_type)


def error_response(model: OperationModel, error: ServiceError) -> Response:
    """Returns the response for an error, with the status of the service's model; 400 where the model has none."""
    metadata = {one.name: one.metadata.get("error", {}) for one in model.error_shapes}.get(error.code, {})
    status = metadata.get("httpStatusCode") or (500 if error.code.startswith("Internal") else 400)
    body = {"__type": error.code, "message": error.message}
    return JSONResponse(body, status, headers={"x-amzn-errortype": error.code})


def error_codes(model: OperationModel) -> set[str]:
    """Returns the names of the errors that an operation may return."""
    return {one.name for one in model.error_shapes}


def _structure(shape: StructureShape | None) -> StructureShape:
    if shape is None:
        raise TypeError("the operation has no parameters or no result")
    return shape


def _read(value: Any, shape: Shape) -> Any:
    """Converts JSON to the types of boto3: text to bytes where the shape is a blob."""
    match shape:
        case StructureShape(members=members):
            return {name: _read(each, members[name]) if name in members else each for name, each in value.items()}
        case ListShape(member=member):
            return [_read(each, member) for each in value]
    return base64.b64decode(value, validate=True) if shape.type_name == "blob" else value


def _written(value: Any) -> Any:
    match value:
        case dict():
            return {name: _written(each) for name, each in value.items()}
        case list():
            return [_written(each) for each in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
    return value


def faults(value: dict[str, Any], shape: Shape) -> Iterator[str]:
    """Yields what botocore's validator finds, and the limits that it leaves to the service."""
    if report := ParamValidator().validate(value, shape).generate_report():
        yield from report.splitlines()
    else:
        yield from _limits(value, shape, "")


def _limits(value: Any, shape: Shape, name: str) -> Iterator[str]:
    metadata = shape.metadata
    size = value if shape.type_name in ("integer", "long", "float", "double") else None
    if shape.type_name in ("string", "blob", "list"):
        size = len(value)
    if size is not None and "max" in metadata and size > metadata["max"]:
        subject = "value" if size is value else "length"
        yield f"Value at '{name}' must have {subject} less than or equal to {metadata['max']}"
    if "enum" in metadata and value not in metadata["enum"]:
        yield f"Value '{value}' at '{name}' must be one of {', '.join(metadata['enum'])}"
    if "pattern" in metadata and not re.fullmatch(metadata["pattern"], value):
        yield f"Value '{value:.80}' at '{name}' must match {metadata['pattern']}"
    if isinstance(shape, StructureShape):
        for member, each in value.items():
            yield from _limits(each, shape.members[member], f"{name}.{member}".lstrip("."))
    if isinstance(shape, ListShape):
        for index, each in enumerate(value):
            yield from _limits(each, shape.member, f"{name}[{index}]")
