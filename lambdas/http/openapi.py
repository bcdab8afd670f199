"""The OpenAPI 3.1 document of /v1, generated from the tables, types and limits that the routes use.

`operations` has an entry for every route; a unit test compares the two. schemathesis tests the service against the
document (`make fuzz`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from lambdas.http import cutouts, jobs
from maskdrop import __version__
from maskdrop.access import IAM_PREFIX, OPEN_PATHS
from maskdrop.catalog import PROMPTED_ENGINE, SEGMENTS, Engine, Task
from maskdrop.errors import (
    AuthFailed,
    BlockedUrl,
    DeadlineExceeded,
    DecodingLimit,
    DetectorThrottled,
    DetectorTimedOut,
    DetectorUnavailable,
    EmptyFile,
    EndpointUnavailable,
    FailedDownload,
    FileTooLarge,
    HostUnavailable,
    IdempotencyKeyReused,
    Internal,
    InvalidBackground,
    InvalidOptions,
    InvalidPreset,
    InvalidPrompt,
    InvalidUrl,
    JobInProgress,
    JobNotDone,
    JobNotFailed,
    JobNotFound,
    MaskdropError,
    NotAllowed,
    NotFound,
    OptionsConflict,
    Overloaded,
    QueueFull,
    QueueUnavailable,
    RateLimitExceeded,
    RegionEmpty,
    RegionOutside,
    RequestInProgress,
    ResolutionTooHigh,
    SourceMissing,
    SourceReplaced,
    StorageUnavailable,
    TableUnavailable,
    TextNotSupported,
    TooManyRedirects,
    UnknownCursor,
    UnknownEngine,
    UnknownLabel,
    UnknownPreset,
    UnreadableImage,
    UnsupportedFormat,
)
from maskdrop.idempotency import IDEMPOTENCY_HEADER, KEY
from maskdrop.job import STATES, Verdict
from maskdrop.limits import IMAGE_BYTES_MAX
from maskdrop.output import CONTENT_TYPE
from maskdrop.schema import (
    JOB_ID,
    Schema,
    components,
    fields_of,
    matching,
    of,
    option_fields,
    or_null,
    record,
    ref,
    request,
    response_options,
)
from maskdrop.ssrf import URL, URL_MAX

PAGE, PAGE_MAX = 50, 200
"""Jobs per page of GET /v1/jobs: default and maximum."""

MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
CURSOR = re.compile(r"[A-Za-z0-9_-]+={0,2}")

JSON, FORM, BYTES = "application/json", "multipart/form-data", "application/octet-stream"

Errors = tuple[type[MaskdropError], ...]

ALWAYS: Errors = (AuthFailed, RateLimitExceeded, TableUnavailable, Overloaded, Internal, DeadlineExceeded)
OPTIONS: Errors = (InvalidOptions, OptionsConflict, InvalidPrompt, UnknownEngine, UnknownPreset, InvalidPreset)
IMAGE: Errors = (EmptyFile, FileTooLarge, ResolutionTooHigh, UnsupportedFormat, UnreadableImage, DecodingLimit)
RESULT: Errors = (RegionOutside, RegionEmpty, InvalidBackground, QueueFull, EndpointUnavailable)
WEB: Errors = (InvalidUrl, BlockedUrl, TooManyRedirects, FailedDownload, HostUnavailable)
PROMPTS: Errors = (UnknownLabel, DetectorUnavailable, DetectorThrottled, DetectorTimedOut)
NEW_JOB: Errors = (NotAllowed, StorageUnavailable, QueueUnavailable)

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
USD: Schema = {"type": "number", "minimum": 0}
FILE: Schema = {"type": "string", "format": "binary", "minLength": 1}
IMAGE_BASE64: Schema = {"type": "string", "contentEncoding": "base64", "format": "byte", "minLength": 1}
PUBLIC_URL: Schema = {**matching(URL), "format": "uri", "maxLength": URL_MAX}


@dataclass(frozen=True, slots=True)
class SuccessResponse:
    """A 2XX or 3XX response. body: media type -> schema; {} for an empty body."""

    description: str
    body: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    links: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. errors: errors of this operation, in addition to ALWAYS."""

    tag: str
    name: str
    summary: str
    description: str = ""
    parameters: Sequence[Schema] = ()
    body: Mapping[str, Schema] | None = None
    responses: Mapping[int, SuccessResponse]
    errors: Errors = ()


RESULTS: Schema = record({"result": ref("Result"), "results": {"type": "array", "items": ref("ResultItem")}})
FILES: dict[str, Schema] = {**dict.fromkeys(CONTENT_TYPE.values(), FILE), JSON: RESULTS}
"""The body of a result: a file, or JSON for several results."""


def _image_operation(
    name: str, summary: str, ok: Mapping[str, Schema], description: str = "", task: Task | None = None
) -> Operation:
    """Returns the operation of a path that processes one image. ok: the body of the response 200. task: that of the
    path; None for a path with every task."""
    links = _links("get_job", "delete_job", "retry_job")
    return Operation(
        tag="images",
        name=name,
        summary=summary,
        description=f"{description} Options can be sent in the query, in the `X-Maskdrop-Options` header and in the "
        "body. The header overrides the query; the body overrides both.".strip(),
        parameters=[
            *(_parameter("query", name, schema) for name, schema in option_fields(flat=True, task=task).items()),
            _parameter(
                "header",
                cutouts.OPTIONS_HEADER,
                request({}, option_fields(flat=False, task=task)),
                "Options as JSON.",
            ),
        ],
        body=_image_bodies(task),
        responses={
            200: SuccessResponse(
                "The result file. Several results and detections are JSON; results have presigned URLs.",
                ok,
                _result_headers(),
            ),
            202: SuccessResponse(
                "The interactive endpoint cannot return the result now. A job was created instead.",
                {JSON: ref("Job")},
                {"Location": TEXT},
                links,
            ),
            303: SuccessResponse(
                "The result is too large for a response body. `Location` has a presigned URL of the file.",
                {JSON: record({"result": ref("Result")})},
                {"Location": TEXT, **_result_headers()},
            ),
        },
        errors=(*OPTIONS, *IMAGE, *RESULT, *WEB, *NEW_JOB, *PROMPTS, TextNotSupported),
    )


def operations() -> dict[tuple[str, str], Operation]:
    """Returns the operations by (method, path)."""
    job = {JSON: ref("Job")}
    job_id = _parameter("path", "job_id", JOB_ID)
    always, where_chosen = response_options()
    links = _links("get_job", "delete_job", "retry_job")
    return {
        ("post", "/v1/cutouts"): _image_operation(
            "cut_out",
            "Cut out the subject of one image, synchronously",
            {**FILES, JSON: {"anyOf": [RESULTS, ref("Detections")]}},
            "Accepts every task.",
        ),
        ("post", "/v1/masks"): _image_operation(
            "mask",
            "Segment the subject of one image, synchronously",
            FILES,
            "The mask is 255 on the subject and 0 elsewhere. With the engine `sam` or `sam2` and no prompt, there "
            "is a mask of each object.",
            "mask",
        ),
        ("post", "/v1/detections"): _image_operation(
            "detect",
            "Detect the instances of labels in one image, synchronously",
            {JSON: ref("Detections")},
            "Prompts select the labels; without a prompt, all labels of the installed detectors are detected.",
            "detect",
        ),
        ("post", "/v1/edits"): _image_operation(
            "edit",
            "Replace the background or the subject of one image",
            FILES,
            "With `background`, the response is the result. With `edit`, it is a job, which generates the images.",
            "replace",
        ),
        ("post", "/v1/uploads"): Operation(
            tag="images",
            name="upload",
            summary=f"Create a presigned form for uploading one file of up to {IMAGE_BYTES_MAX // 2**20} MiB",
            description="Post a multipart form to `url`: these `fields`, in this order, then the file as the field "
            "`file`. The form is valid for 5 minutes. Then create a job with `upload` as its source.",
            body={
                JSON: request(
                    {
                        "name": {
                            **matching(_ecma(jobs.NAME)),
                            "description": "File name without a path, 1 to 128 characters.",
                        },
                        "content_type": {
                            **matching(jobs.CONTENT_TYPE.pattern),
                            "description": "Content type of the file: image/… or application/octet-stream.",
                        },
                    },
                    {},
                )
            },
            responses={
                201: SuccessResponse(
                    "The presigned form.",
                    {
                        JSON: record(
                            {
                                "upload": matching(_ecma(jobs.UPLOAD)),
                                "url": {"type": "string", "format": "uri"},
                                "fields": {"type": "object", "additionalProperties": TEXT},
                                "bytes_max": COUNT,
                                "expires_at": {"type": "string", "format": "date-time"},
                            }
                        )
                    },
                )
            },
            errors=(InvalidOptions, FileTooLarge),
        ),
        ("post", "/v1/jobs"): Operation(
            tag="jobs",
            name="new_job",
            summary="Create a job",
            description="The same image with the same options returns the same job. A repeated request with the same "
            "`Idempotency-Key` returns the same response for 24 hours.",
            parameters=[
                _parameter(
                    "header",
                    IDEMPOTENCY_HEADER,
                    matching(KEY.pattern),
                    "1 to 255 printable ASCII characters without spaces, such as a UUID.",
                )
            ],
            body={JSON: request({"source": _source()}, {**option_fields(flat=False), "webhook": _webhook()})},
            responses={
                200: SuccessResponse("The job exists already and has finished.", job, {"Location": TEXT}, links),
                202: SuccessResponse("The job is queued or submitted.", job, {"Location": TEXT}, links),
            },
            errors=(
                *(
                    *OPTIONS,
                    *WEB,
                    *NEW_JOB,
                    TextNotSupported,
                    SourceMissing,
                    EmptyFile,
                    FileTooLarge,
                    UnsupportedFormat,
                ),
                *(IdempotencyKeyReused, RequestInProgress),
            ),
        ),
        ("get", "/v1/jobs"): Operation(
            tag="jobs",
            name="list_jobs",
            summary="List the caller's jobs, most recently changed first",
            parameters=[
                _parameter("query", "state", {"type": "string", "enum": [*STATES]}, "Jobs in this state."),
                _parameter("query", "prefix", TEXT, "Jobs whose source has an S3 key with this prefix."),
                *(
                    _parameter(
                        "query", name, {"type": "string", "format": "date-time"}, f"Jobs last changed {when} this time."
                    )
                    for name, when in (("since", "at or after"), ("until", "before"))
                ),
                _parameter(
                    "query",
                    "limit",
                    {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE},
                    "Maximum number of jobs in the page.",
                ),
                _parameter("query", "cursor", matching(CURSOR.pattern), "`cursor` of the previous page."),
            ],
            responses={
                200: SuccessResponse(
                    "One page of jobs. `cursor` is null on the last page.",
                    {JSON: record({"jobs": {"type": "array", "items": ref("Job")}, "cursor": or_null(TEXT)})},
                )
            },
            errors=(InvalidOptions, UnknownCursor),
        ),
        ("get", "/v1/jobs/{job_id}"): Operation(
            tag="jobs",
            name="get_job",
            summary="Get a job, with a presigned URL of its result",
            parameters=[job_id],
            responses={200: SuccessResponse("The job.", job)},
            errors=(NotFound, JobNotFound),
        ),
        ("delete", "/v1/jobs/{job_id}"): Operation(
            tag="jobs",
            name="delete_job",
            summary="Delete a job and its images",
            parameters=[job_id],
            responses={204: SuccessResponse("The job was deleted.")},
            errors=(NotFound, JobNotFound, JobInProgress, StorageUnavailable),
        ),
        ("post", "/v1/jobs/{job_id}/retry"): Operation(
            tag="jobs",
            name="retry_job",
            summary="Retry a failed job",
            parameters=[job_id],
            responses={202: SuccessResponse("The job is queued.", job)},
            errors=(NotFound, JobNotFound, JobNotFailed, InvalidPreset, QueueUnavailable),
        ),
        ("get", "/v1/jobs/{job_id}/source"): Operation(
            tag="jobs",
            name="get_source",
            summary="Get a presigned URL of a job's source",
            description="For callers that may create a job from the S3 object: of their own uploads and of "
            "`source_buckets`; with the scope `all` also of the drop folder.",
            parameters=[job_id],
            responses={
                200: SuccessResponse(
                    "The URL, valid for 15 minutes.", {JSON: record({"url": {"type": "string", "format": "uri"}})}
                )
            },
            errors=(NotFound, JobNotFound, NotAllowed, SourceMissing, SourceReplaced, StorageUnavailable),
        ),
        ("post", "/v1/jobs/{job_id}/review"): Operation(
            tag="jobs",
            name="review_job",
            summary="Accept or correct the result of a job",
            description="A later review replaces an earlier one. Where the operator keeps corrections "
            "(`keep_corrections_days`), the source and the uploaded cut-out become a training record.",
            parameters=[job_id],
            body={
                JSON: request(
                    {"verdict": {**of(Verdict), "description": "Whether the result is right, or was corrected."}},
                    {
                        "upload": {
                            **or_null(matching(_ecma(jobs.UPLOAD))),
                            "description": "With `corrected`: id of the upload of the corrected cut-out, a PNG of the "
                            "size of the upright source. Its alpha is the mask; without alpha, its grey values.",
                        }
                    },
                )
            },
            responses={200: SuccessResponse("The job with its review.", job)},
            errors=(
                *(InvalidOptions, OptionsConflict, FileTooLarge, NotFound, JobNotFound, JobNotDone, NotAllowed),
                *(SourceMissing, SourceReplaced, UnreadableImage, StorageUnavailable),
            ),
        ),
        ("get", "/v1/engines"): Operation(
            tag="service",
            name="engines",
            summary="List the engines",
            description=f"Requests with a prompt and without an engine use `{PROMPTED_ENGINE}` for the tasks "
            f"{', '.join(f'`{task}`' for task in SEGMENTS)}.",
            responses={200: SuccessResponse("The engines.", {JSON: _list_of("engines", _engine())})},
        ),
        ("get", "/v1/presets"): Operation(
            tag="service",
            name="presets",
            summary="List the presets",
            description="A preset that is not valid has `error` instead of options.",
            responses={
                200: SuccessResponse(
                    "The presets and their options.",
                    {
                        JSON: _list_of(
                            "presets", record({"name": TEXT}, {**always, **where_chosen, "error": ref("ErrorInfo")})
                        )
                    },
                )
            },
        ),
        ("get", "/v1/usage"): Operation(
            tag="service",
            name="usage",
            summary="Get the usage of the caller's owner in a calendar month (UTC)",
            description="Counts requests and jobs of the owner's keys. Photos of the drop folder have no owner and are "
            "not counted: an operator lists their jobs by `GET /v1/jobs?prefix=inbox/`.",
            parameters=[
                _parameter(
                    "query", "month", matching(MONTH.pattern), "Month as YYYY-MM; the default is the current month."
                )
            ],
            responses={
                200: SuccessResponse(
                    "Number of images (`pictures`), of requests that the rate limit rejected (`refused`) and of images "
                    "generated from text (`generated`), with the price of the latter in US dollars (`generated_usd`).",
                    {
                        JSON: record(
                            {
                                "owner": TEXT,
                                "month": TEXT,
                                **dict.fromkeys(("pictures", "refused", "generated"), COUNT),
                                "generated_usd": USD,
                            }
                        )
                    },
                )
            },
            errors=(InvalidOptions,),
        ),
        ("get", "/v1/health"): Operation(
            tag="service",
            name="health",
            summary="Check the health of the service",
            responses={
                200: SuccessResponse(
                    "The service is available.",
                    {JSON: record(dict.fromkeys(("status", "stage", "version", "time"), TEXT))},
                )
            },
        ),
        ("get", "/v1/openapi.json"): Operation(
            tag="service",
            name="openapi",
            summary="Get the OpenAPI document",
            responses={
                200: SuccessResponse(
                    "The OpenAPI 3.1 document.", {JSON: record({"openapi": TEXT, "paths": {"type": "object"}})}
                )
            },
        ),
        ("get", "/v1/docs"): Operation(
            tag="service",
            name="docs",
            summary="Show the OpenAPI document as an HTML page",
            responses={200: SuccessResponse("The HTML page.", {"text/html": TEXT})},
        ),
    }


def document() -> dict[str, Any]:
    """Returns the OpenAPI document as a JSON object."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations().items():
        paths.setdefault(path, {})[method] = _operation(operation, is_open=path in OPEN_PATHS)
    event = record({"type": {"enum": ["job.done", "job.failed"]}, "timestamp": TEXT, "data": ref("Job")})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Maskdrop",
            "version": __version__,
            "summary": "Background removal and alpha mattes, synchronously or as jobs.",
            "description": "Background removal and alpha mattes in your own AWS account. Send the API key in "
            "`X-Api-Key` or `Authorization: Bearer`. Callers with AWS credentials sign requests with Signature "
            f"Version 4 and prefix every path with `{IAM_PREFIX}`. 400: the request does not match this document. "
            "422: the request is valid but cannot be processed. 424: the file could not be fetched from the URL in "
            "the request.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Relative to this document, because stages and custom domains add a prefix before /v1.
        "servers": [{"url": ".."}],
        "security": [{"key": []}, {"bearer": []}],
        "paths": paths,
        "webhooks": {
            "end": {
                "post": {
                    "tags": ["jobs"],
                    "operationId": "job_ended",
                    "security": [],
                    "summary": "A job finished. The request is signed as Standard Webhooks defines",
                    "requestBody": {"content": {JSON: {"schema": event}}},
                    "responses": {
                        "2XX": {"description": "The event was accepted."},
                        "410": {"description": "The receiver rejects the event permanently; it is not sent again."},
                    },
                }
            }
        },
        "components": {
            "schemas": components(),
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def methods_at(path: str) -> list[str]:
    """Returns the HTTP methods of a path in the form of the `Allow` header; [] for an unknown path."""
    known = operations()
    return [method.upper() for method, shape in known if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", shape), path)]


def _operation(operation: Operation, *, is_open: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"tags": [operation.tag], "operationId": operation.name, "summary": operation.summary}
    if operation.description:
        result["description"] = operation.description
    if operation.parameters:
        result["parameters"] = list(operation.parameters)
    if operation.body:
        content = {kind: {"schema": schema} for kind, schema in operation.body.items()}
        if FORM in content:
            content[FORM]["encoding"] = {name: {"contentType": JSON} for name in ("prompt", "strokes")}
        result["requestBody"] = {"required": True, "content": content}
    if is_open:
        result["security"] = []
    responses = {str(status): _success(response, is_open=is_open) for status, response in operation.responses.items()}
    errors = dict(_errors((Overloaded, Internal, DeadlineExceeded) if is_open else (*ALWAYS, *operation.errors)))
    return {**result, "responses": {**responses, **errors}}


def _success(response: SuccessResponse, *, is_open: bool) -> dict[str, Any]:
    headers = {name: {"required": True, "schema": schema} for name, schema in response.headers.items()}
    if not is_open:
        headers |= {
            f"X-RateLimit-{name}": {"required": True, "schema": {**COUNT, "description": description}}
            for name, description in (
                ("Limit", "Requests allowed per minute."),
                ("Remaining", "Requests left in the current rate-limit window."),
                ("Reset", "End of the rate-limit window, as a Unix timestamp in seconds."),
            )
        }
    result: dict[str, Any] = {"description": response.description}
    if headers:
        result["headers"] = headers
    if response.body:
        result["content"] = {kind: {"schema": schema} for kind, schema in response.body.items()}
    if response.links:
        result["links"] = response.links
    return result


def _errors(errors: Errors) -> Iterator[tuple[str, dict[str, Any]]]:
    for status in sorted({error.status for error in errors}):
        kinds = {error.code: error for error in errors if error.status == status}
        code = {"properties": {"code": {"enum": [*kinds]}}}
        result: dict[str, Any] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in kinds)}.",
            "content": {JSON: {"schema": record({"error": {"allOf": [ref("ErrorInfo"), code]}})}},
        }
        if any(kind.retryable for kind in kinds.values()):
            result["headers"] = {"Retry-After": {"schema": COUNT}}
        yield str(status), result


def _parameter(where: str, name: str, schema: Schema, description: str = "") -> Schema:
    """Returns a parameter object. A parameter that is not plain text is encoded as JSON."""
    plain = isinstance(schema.get("type"), str) and schema["type"] not in ("object", "array")
    parameter: Schema = {"in": where, "name": name, "required": where == "path"}
    parameter |= {"schema": schema} if plain else {"content": {JSON: {"schema": schema}}}
    return parameter | ({"description": description} if description else {})


def _links(*names: str) -> dict[str, Any]:
    return {name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in names}


def _image_bodies(task: Task | None) -> dict[str, Schema]:
    """Returns the request bodies that `cutouts.parse_request` accepts. task: as in `_image_operation`."""
    options = option_fields(flat=False, task=task)
    by_url = {"source": request({"url": PUBLIC_URL}, {})}
    return {
        "image/*": FILE,
        BYTES: FILE,
        FORM: request({"image": FILE}, option_fields(flat=True, task=task)),
        JSON: {"oneOf": [request({"image_base64": IMAGE_BASE64}, options), request(by_url, options)]},
    }


def _result_headers() -> dict[str, Schema]:
    """Returns the schemas of cutouts.HEADERS: numbers as text, and JSON from `Subject` on."""
    return {name: COUNT if name.endswith(("Width", "Height")) else TEXT for name in cutouts.HEADERS}


def _source() -> Schema:
    s3_object = {"bucket": TEXT, "key": matching(_ecma(jobs.KEY))}
    upload = {"upload": matching(_ecma(jobs.UPLOAD))}
    kinds = [request(upload, {}), request(s3_object, {}), request({"url": PUBLIC_URL}, {})]
    return {"oneOf": kinds, "description": "An upload, an S3 object, or the URL of an image."}


def _webhook() -> Schema:
    return {**or_null(PUBLIC_URL), "description": "URL that receives a signed event when the job finishes."}


def _engine() -> Schema:
    prompts = {"type": "array", "items": TEXT}
    tasks: Schema = {"type": "array", "items": of(Task)}
    result: dict[str, Schema] = {
        "task": {**of(Task), "description": "The main one of `tasks`."},
        "prompts": prompts,
        "default": {**of(bool), "description": "Whether `default_for` has tasks."},
        "default_for": {**tasks, "description": "Tasks of requests that name neither an engine nor a prompt."},
        "interactive": {**of(bool), "description": "Whether this stage returns results synchronously."},
        "available": {
            **of(bool | None),
            "description": "Whether the engine is installed; null if that is not known. If false, requests for it are "
            "refused with `unknown_engine`.",
        },
    }
    return record({**fields_of(Engine, "factory", "light", "prompts"), **result})


def _list_of(name: str, schema: Schema) -> Schema:
    return record({name: {"type": "array", "items": schema}})


def _ecma(pattern: re.Pattern[str]) -> str:
    """Returns the pattern for ECMAScript, without surrogates: ECMAScript patterns and JSON text do not have them."""
    return pattern.pattern.replace(r"\ud800-\udfff", "")
