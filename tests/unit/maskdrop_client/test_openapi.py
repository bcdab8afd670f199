"""Compares the client with the OpenAPI document: operations, options and the fields of responses."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from lambdas.http.openapi import document
from maskdrop import errors
from maskdrop.schema import option_fields
from maskdrop_client import AsyncMaskdrop, Maskdrop, models
from maskdrop_client.client import METHODS
from maskdrop_client.errors import InvalidResponse, error_class
from maskdrop_client.options import TOP_LEVEL, JobOptions, Options

ROOT = Path(__file__).parents[3]

DOCUMENT = document()

OPERATIONS = {operation["operationId"]: operation for item in DOCUMENT["paths"].values() for operation in item.values()}

NAMED = {
    "Job": models.Job,
    "Source": models.Source,
    "Result": models.StoredFile,
    "ResultItem": models.ResultItem,
    "Detections": models.Detections,
    "Candidate": models.Candidate,
    "Subject": models.Subject,
    "Review": models.Review,
    "Webhook": models.Webhook,
    "ErrorInfo": models.ErrorInfo,
}
"""The dataclasses of the client by the name of their schema."""

REQUESTS = {"Prompt", "Edit", "Stroke", "Output"}
"""Schemas of requests, which are mappings in the client."""

MORE: dict[type, set[str]] = {models.Detections: {"warnings", "timings"}}
"""Fields that are not in the schema, because they are headers of the response."""


def test_every_operation_has_a_method_in_both_clients() -> None:
    missing = sorted(set(OPERATIONS) - set(METHODS))
    assert not missing, f"Add a method for {missing} to Maskdrop, AsyncMaskdrop and METHODS."
    assert set(METHODS) == set(OPERATIONS)
    for client in (Maskdrop, AsyncMaskdrop):
        assert [name for name in METHODS.values() if not hasattr(client, name)] == []


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def signatures(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
        public = {name: value for name, value in vars(client).items() if not name.startswith("_") or name == "__init__"}
        return {
            name: [(one.name, one.kind, one.default) for one in inspect.signature(value).parameters.values()]
            for name, value in public.items()
        }

    assert signatures(Maskdrop) == signatures(AsyncMaskdrop)


def test_every_schema_of_a_response_has_a_dataclass() -> None:
    assert set(DOCUMENT["components"]["schemas"]) == {*NAMED, *REQUESTS}


def object_schema(operation: str, status: str = "200") -> dict[str, Any]:
    schema: dict[str, Any] = OPERATIONS[operation]["responses"][status]["content"]["application/json"]["schema"]
    return schema


INLINE = {
    models.JobPage: object_schema("list_jobs"),
    models.Usage: object_schema("usage"),
    models.Health: object_schema("health"),
    models.UploadForm: object_schema("upload", "201"),
    models.SourceUrl: object_schema("get_source"),
    models.Engine: object_schema("engines")["properties"]["engines"]["items"],
    models.Detection: DOCUMENT["components"]["schemas"]["Detections"]["properties"]["detections"]["items"],
    models.Preset: object_schema("presets")["properties"]["presets"]["items"],
}

SCHEMAS = {kind: DOCUMENT["components"]["schemas"][name] for name, kind in NAMED.items()} | INLINE


@pytest.mark.parametrize("kind", SCHEMAS, ids=lambda kind: kind.__name__)
def test_a_dataclass_has_the_fields_of_its_schema_with_their_types(kind: type) -> None:
    schema = SCHEMAS[kind]
    hints = get_type_hints(kind)
    assert set(hints) - MORE.get(kind, set()) == set(schema["properties"])
    for name, value in schema["properties"].items():
        assert accepts(hints[name], value), f"{kind.__name__}.{name}: {hints[name]} does not accept {value}"
    required = {item.name for item in fields(kind) if item.default is item.default_factory}
    assert required <= set(schema["required"])


JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}


def accepts(hint: Any, schema: dict[str, Any]) -> bool:
    """Whether every value of the schema is read as `hint`."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return hint is Any if name in REQUESTS else inner(hint) is NAMED[name]
    if "anyOf" in schema:
        nullable = {"type": "null"} in schema["anyOf"]
        rest = [one for one in schema["anyOf"] if one != {"type": "null"}]
        return hint is Any or (nullable <= optional(hint) and all(accepts(inner(hint), one) for one in rest))
    if isinstance(schema.get("type"), list):
        kind, null = schema["type"]
        return null == "null" and optional(hint) and accepts(inner(hint), {**schema, "type": kind})
    match schema.get("type"):
        case "array":
            return get_origin(hint) is tuple and accepts(get_args(hint)[0], schema["items"])
        case "object":
            return get_origin(hint) is dict or (
                hint in INLINE and set(schema["properties"]) <= set(get_type_hints(hint))
            )
        case "string" if schema.get("format") == "date-time":
            return hint is datetime
    return inner(hint) in JSON_TYPES and JSON_TYPES[inner(hint)] == schema.get("type", "string")


def optional(hint: Any) -> bool:
    return isinstance(hint, UnionType) and NoneType in get_args(hint)


def inner(hint: Any) -> Any:
    return next(one for one in get_args(hint) if one is not NoneType) if optional(hint) else hint


def test_the_keyword_arguments_are_the_options_of_the_api() -> None:
    options = set(option_fields(flat=True))
    assert set(JobOptions.__annotations__) - {"output"} == options
    assert set(Options.__annotations__) - {"output"} == options - {"task", "edit"}
    assert set(TOP_LEVEL) == set(option_fields(flat=False)) - {"output"}


@pytest.mark.parametrize("code", sorted(errors.error_kinds()))
def test_every_error_of_the_api_has_a_class(code: str) -> None:
    kind = errors.error_kinds()[code]
    expected = {
        400: "InvalidRequest", 404: "NotFound", 413: "InvalidRequest", 415: "InvalidRequest", 422: "InvalidRequest",
        424: "InvalidRequest", 429: "RateLimited", 500: "ServiceUnavailable", 503: "ServiceUnavailable",
        504: "ServiceUnavailable",
    }.get(kind.status, "ApiError")  # fmt: skip
    assert error_class(kind.status, code).__name__ == ("AuthenticationFailed" if code == "auth_failed" else expected)


RECORDED: dict[str, type] = {
    "engines": models.EngineList,
    "presets": models.PresetList,
    "usage": models.Usage,
    "job": models.Job,
    "job-failed": models.Job,
    "new-job": models.Job,
    "retry": models.Job,
    "jobs": models.JobPage,
    "jobs-first-page": models.JobPage,
}
"""The dataclass of each recorded response."""


def recorded_body(name: str) -> Any:
    """Returns the JSON of a recorded response, after its lines of status and headers."""
    return json.loads((ROOT / "tests" / "golden" / "api" / f"{name}.txt").read_text().split("\n", 2)[2])


def test_every_recorded_response_is_read() -> None:
    recorded = {path.stem: path for path in (ROOT / "tests" / "golden" / "api").glob("*.txt")}
    assert set(recorded) == set(RECORDED)
    for name, kind in RECORDED.items():
        read: Any = models.read(kind, recorded_body(name))
        first = next(iter(fields(kind)))
        assert getattr(read, first.name)


@pytest.mark.parametrize(
    "change", [{"id": None}, {"attempts": "3"}, {"attempts": True}, {"source": []}, {"warnings": 3}]
)
def test_a_response_of_other_types_is_refused(change: dict[str, Any]) -> None:
    data = recorded_body("job")
    with pytest.raises(InvalidResponse, match="not a Job of this API"):
        models.read(models.Job, {**data, **change})


def test_fields_of_a_newer_api_are_ignored() -> None:
    data = recorded_body("job")
    assert models.read(models.Job, {**data, "hologram": 1}) == models.read(models.Job, data)


def test_the_client_imports_httpx2_and_no_other_large_package() -> None:
    code = "import sys, maskdrop_client; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603
    loaded = set(done.stdout.split())
    assert {"maskdrop_client", "httpx2"} <= loaded
    assert not loaded & {"PIL", "numpy", "boto3", "pydantic", "cv2", "maskdrop", "lambdas", "sagemaker_model"}
