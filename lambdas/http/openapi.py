"""The OpenAPI 3.1 document of /v1, made from the very tables, types and limits that the routes work with. `operations`
has a row for every route: a test holds the two together, and schemathesis the document and the service (`make fuzz`).
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
from maskdrop.catalog import Engine
from maskdrop.errors import (
    AuthFailed,
    BlockedUrl,
    DeadlineExceeded,
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
    JobInWork,
    JobNotFailed,
    JobNotFound,
    MaskdropError,
    NotAllowed,
    NotFound,
    OptionsConflict,
    QueueFull,
    QueueUnavailable,
    RateLimitExceeded,
    RegionEmpty,
    RegionOutside,
    RequestInWork,
    ResolutionTooHigh,
    SourceMissing,
    StorageUnavailable,
    TableUnavailable,
    TooManyRedirects,
    UnknownCursor,
    UnknownEngine,
    UnknownPreset,
    UnreadablePicture,
    UnsupportedFormat,
)
from maskdrop.guard import URL, URL_MAX
from maskdrop.job import STATES
from maskdrop.once import IDEMPOTENCY_HEADER, KEY
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
    told_options,
)

PAGE, PAGE_MAX = 50, 200
"""Jobs on a page of the list: unless told, and at most."""

MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
CURSOR = re.compile(r"[A-Za-z0-9_-]+={0,2}")

JSON, FORM, BYTES = "application/json", "multipart/form-data", "application/octet-stream"

Errors = tuple[type[MaskdropError], ...]

ALWAYS: Errors = (AuthFailed, RateLimitExceeded, TableUnavailable, Internal, DeadlineExceeded)
OPTIONS: Errors = (InvalidOptions, OptionsConflict, InvalidPrompt, UnknownEngine, UnknownPreset, InvalidPreset)
PICTURE: Errors = (EmptyFile, FileTooLarge, ResolutionTooHigh, UnsupportedFormat, UnreadablePicture)
RESULT: Errors = (RegionOutside, RegionEmpty, InvalidBackground, QueueFull, EndpointUnavailable)
WEB: Errors = (InvalidUrl, BlockedUrl, TooManyRedirects, FailedDownload, HostUnavailable)
NEW_JOB: Errors = (NotAllowed, StorageUnavailable, QueueUnavailable)

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FILE: Schema = {"type": "string", "format": "binary", "minLength": 1}
PICTURE_TEXT: Schema = {"type": "string", "contentEncoding": "base64", "format": "byte", "minLength": 1}
ADDRESS: Schema = {**matching(URL), "format": "uri", "maxLength": URL_MAX}


@dataclass(frozen=True, slots=True)
class Answer:
    """A good one. body: media type -> schema; {} for none."""

    meaning: str
    body: Mapping[str, Schema] = field(default_factory=dict)
    headers: Mapping[str, Schema] = field(default_factory=dict)
    links: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """errors: those of its own, besides ALWAYS."""

    tag: str
    name: str
    summary: str
    told: str = ""
    parameters: Sequence[Schema] = ()
    body: Mapping[str, Schema] | None = None
    answers: Mapping[int, Answer]
    errors: Errors = ()


def operations() -> dict[tuple[str, str], Operation]:
    """(method, path) -> what it does."""
    job = {JSON: ref("Job")}
    job_id = _parameter("path", "job_id", JOB_ID)
    links = _links("get_job", "delete_job", "retry_job")
    return {
        ("post", "/v1/cutouts"): Operation(
            tag="pictures",
            name="cut_out",
            summary="One picture, now",
            told="The header's options count more than the query's, the body's more than both.",
            parameters=[
                *(_parameter("query", name, schema) for name, schema in option_fields(flat=True).items()),
                _parameter("header", cutouts.OPTIONS_HEADER, request({}, option_fields(flat=False))),
            ],
            body=_pictures(),
            answers={
                200: Answer("The result.", dict.fromkeys(CONTENT_TYPE.values(), FILE), _facts()),
                202: Answer("The interactive endpoint cannot give it now: a job will.", job, {"Location": TEXT}, links),
                303: Answer(
                    "The result is too large for an answer: it is at `Location`.",
                    {JSON: record({"result": ref("Result")})},
                    {"Location": TEXT, **_facts()},
                ),
            },
            errors=(*OPTIONS, *PICTURE, *RESULT, *WEB, *NEW_JOB),
        ),
        ("post", "/v1/uploads"): Operation(
            tag="pictures",
            name="upload",
            summary="Where to post a file of up to 32 MB",
            told="Post it there as a form with these fields, in this order, and the file as the last field, `file`; "
            "then make a job of it.",
            body={
                JSON: request(
                    {"name": matching(_ecma(jobs.NAME)), "content_type": matching(jobs.CONTENT_TYPE.pattern)}, {}
                )
            },
            answers={
                201: Answer(
                    "The form.",
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
            summary="A picture, in its turn",
            told="The same picture with the same options is the same job. With an Idempotency-Key the same request is "
            "answered alike for a day.",
            parameters=[_parameter("header", IDEMPOTENCY_HEADER, matching(KEY.pattern))],
            body={JSON: request({"source": _source()}, {**option_fields(flat=False), "webhook": or_null(ADDRESS)})},
            answers={
                200: Answer("It was asked for before, and has ended.", job, {"Location": TEXT}, links),
                202: Answer("It is queued.", job, {"Location": TEXT}, links),
            },
            errors=(
                *(*OPTIONS, *WEB, *NEW_JOB, SourceMissing, EmptyFile, FileTooLarge, UnsupportedFormat),
                *(IdempotencyKeyReused, RequestInWork),
            ),
        ),
        ("get", "/v1/jobs"): Operation(
            tag="jobs",
            name="list_jobs",
            summary="The caller's jobs, those that changed last first",
            parameters=[
                _parameter("query", "state", {"type": "string", "enum": [*STATES]}),
                _parameter("query", "prefix", TEXT, "What the source's key begins with."),
                *(
                    _parameter("query", name, {"type": "string", "format": "date-time"}, f"Changed {told} then.")
                    for name, told in (("since", "not before"), ("until", "before"))
                ),
                _parameter("query", "limit", {"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE}),
                _parameter("query", "cursor", matching(CURSOR.pattern), "As the page before gave it."),
            ],
            answers={
                200: Answer(
                    "A page. `cursor` is null on the last one.",
                    {JSON: record({"jobs": {"type": "array", "items": ref("Job")}, "cursor": or_null(TEXT)})},
                )
            },
            errors=(InvalidOptions, UnknownCursor),
        ),
        ("get", "/v1/jobs/{job_id}"): Operation(
            tag="jobs",
            name="get_job",
            summary="One job, with its result's address",
            parameters=[job_id],
            answers={200: Answer("The job.", job)},
            errors=(
                NotFound,
                JobNotFound,
            ),
        ),
        ("delete", "/v1/jobs/{job_id}"): Operation(
            tag="jobs",
            name="delete_job",
            summary="Removes a job and its pictures",
            parameters=[job_id],
            answers={204: Answer("It is gone.")},
            errors=(NotFound, JobNotFound, JobInWork, StorageUnavailable),
        ),
        ("post", "/v1/jobs/{job_id}/retry"): Operation(
            tag="jobs",
            name="retry_job",
            summary="Tries a failed job anew",
            parameters=[job_id],
            answers={202: Answer("It is queued.", job)},
            errors=(NotFound, JobNotFound, JobNotFailed, InvalidPreset, QueueUnavailable),
        ),
        ("get", "/v1/engines"): Operation(
            tag="service",
            name="engines",
            summary="What can be asked for",
            answers={200: Answer("The catalogue.", {JSON: _list_of("engines", _engine())})},
        ),
        ("get", "/v1/presets"): Operation(
            tag="service",
            name="presets",
            summary="Named options",
            told="One that cannot be used has an error instead of options.",
            answers={
                200: Answer(
                    "By name.",
                    {JSON: _list_of("presets", record({"name": TEXT}, {**told_options(), "error": ref("ErrorInfo")}))},
                )
            },
        ),
        ("get", "/v1/usage"): Operation(
            tag="service",
            name="usage",
            summary="What the caller used in a month of UTC",
            parameters=[_parameter("query", "month", matching(MONTH.pattern), "The running one unless told.")],
            answers={
                200: Answer(
                    "The counts.", {JSON: record({"owner": TEXT, "month": TEXT, "pictures": COUNT, "refused": COUNT})}
                )
            },
            errors=(InvalidOptions,),
        ),
        ("get", "/v1/health"): Operation(
            tag="service",
            name="health",
            summary="Whether the service answers",
            answers={
                200: Answer("It does.", {JSON: record(dict.fromkeys(("status", "stage", "version", "time"), TEXT))})
            },
        ),
        ("get", "/v1/openapi.json"): Operation(
            tag="service",
            name="openapi",
            summary="This description",
            answers={200: Answer("OpenAPI 3.1.", {JSON: record({"openapi": TEXT, "paths": {"type": "object"}})})},
        ),
        ("get", "/v1/docs"): Operation(
            tag="service",
            name="docs",
            summary="This description as a page",
            answers={200: Answer("A page.", {"text/html": TEXT})},
        ),
    }


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), operation in operations().items():
        paths.setdefault(path, {})[method] = _operation(operation, is_open=path in OPEN_PATHS)
    event = record({"type": {"enum": ["job.done", "job.failed"]}, "timestamp": TEXT, "data": ref("Job")})
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Maskdrop",
            "version": __version__,
            "summary": "Drop an image, get its mask.",
            "description": "Cut-outs and mattes in your own AWS account. A key goes into `X-Api-Key` or "
            f"`Authorization: Bearer`; callers with AWS credentials sign instead, and put `{IAM_PREFIX}` before every "
            "path. 400 is a request that is not as described here, 422 one that is and cannot be carried out, 424 one "
            "whose address does not give its file.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # Relative to this document: stages and domains put their own before /v1.
        "servers": [{"url": ".."}],
        "security": [{"key": []}, {"bearer": []}],
        "paths": paths,
        "webhooks": {
            "end": {
                "post": {
                    "tags": ["jobs"],
                    "operationId": "job_ended",
                    "security": [],
                    "summary": "The end of a job, signed as Standard Webhooks has it",
                    "requestBody": {"content": {JSON: {"schema": event}}},
                    "responses": {"2XX": {"description": "Taken."}, "410": {"description": "Tell me nothing more."}},
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
    """Those that an address has, as the header Allow has them; none where there is no such address."""
    known = operations()
    return [method.upper() for method, shape in known if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", shape), path)]


def _operation(operation: Operation, *, is_open: bool) -> dict[str, Any]:
    told: dict[str, Any] = {"tags": [operation.tag], "operationId": operation.name, "summary": operation.summary}
    if operation.told:
        told["description"] = operation.told
    if operation.parameters:
        told["parameters"] = list(operation.parameters)
    if operation.body:
        content = {kind: {"schema": schema} for kind, schema in operation.body.items()}
        if FORM in content:
            content[FORM]["encoding"] = {"prompt": {"contentType": JSON}}
        told["requestBody"] = {"required": True, "content": content}
    if is_open:
        told["security"] = []
    answers = {str(status): _answer(answer, is_open=is_open) for status, answer in operation.answers.items()}
    refusals = dict(_refusals((Internal, DeadlineExceeded) if is_open else (*ALWAYS, *operation.errors)))
    return {**told, "responses": {**answers, **refusals}}


def _answer(answer: Answer, *, is_open: bool) -> dict[str, Any]:
    headers = {name: {"required": True, "schema": schema} for name, schema in answer.headers.items()}
    if not is_open:
        headers |= {
            f"X-RateLimit-{name}": {"required": True, "schema": {**COUNT, "description": told}}
            for name, told in (
                ("Limit", "Calls a minute."),
                ("Remaining", "Calls left in this one."),
                ("Reset", "When it is over, in Unix seconds."),
            )
        }
    told: dict[str, Any] = {"description": answer.meaning}
    if headers:
        told["headers"] = headers
    if answer.body:
        told["content"] = {kind: {"schema": schema} for kind, schema in answer.body.items()}
    if answer.links:
        told["links"] = answer.links
    return told


def _refusals(errors: Errors) -> Iterator[tuple[str, dict[str, Any]]]:
    for status in sorted({error.status for error in errors}):
        kinds = {error.code: error for error in errors if error.status == status}
        code = {"properties": {"code": {"enum": [*kinds]}}}
        told: dict[str, Any] = {
            "description": f"{HTTPStatus(status).phrase}: {', '.join(f'`{code}`' for code in kinds)}.",
            "content": {JSON: {"schema": record({"error": {"allOf": [ref("ErrorInfo"), code]}})}},
        }
        if any(kind.retryable for kind in kinds.values()):
            told["headers"] = {"Retry-After": {"schema": COUNT}}
        yield str(status), told


def _parameter(where: str, name: str, schema: Schema, told: str = "") -> Schema:
    """One that is no text is JSON."""
    plain = isinstance(schema.get("type"), str) and schema["type"] != "object"
    parameter: Schema = {"in": where, "name": name, "required": where == "path"}
    parameter |= {"schema": schema} if plain else {"content": {JSON: {"schema": schema}}}
    return parameter | ({"description": told} if told else {})


def _links(*names: str) -> dict[str, Any]:
    return {name: {"operationId": name, "parameters": {"job_id": "$response.body#/id"}} for name in names}


def _pictures() -> dict[str, Schema]:
    """The forms in which one comes, as `cutouts.asked_of` reads them."""
    options = option_fields(flat=False)
    by_url = {"source": request({"url": ADDRESS}, {})}
    return {
        "image/*": FILE,
        BYTES: FILE,
        FORM: request({"image": FILE}, option_fields(flat=True)),
        JSON: {"oneOf": [request({"image_base64": PICTURE_TEXT}, options), request(by_url, options)]},
    }


def _facts() -> dict[str, Schema]:
    """Of cutouts.HEADERS, as text: numbers, and from the subject on JSON."""
    return {name: COUNT if name.endswith(("Width", "Height")) else TEXT for name in cutouts.HEADERS}


def _source() -> Schema:
    place = {"bucket": TEXT, "key": matching(_ecma(jobs.KEY))}
    upload = {"upload": matching(_ecma(jobs.UPLOAD))}
    return {"oneOf": [request(upload, {}), request(place, {}), request({"url": ADDRESS}, {})]}


def _engine() -> Schema:
    prompts = {"type": "array", "items": TEXT}
    told = {"prompts": prompts, "default": of(bool), "interactive": of(bool)}
    return record({**fields_of(Engine, "factory", "light", "prompts"), **told})


def _list_of(name: str, schema: Schema) -> Schema:
    return record({name: {"type": "array", "items": schema}})


def _ecma(pattern: re.Pattern[str]) -> str:
    """Without halves of characters, which no JSON of others' has and their regular expressions do not know."""
    return pattern.pattern.replace(r"\ud800-\udfff", "")
