"""The operations of the API without input and output: generators that yield steps and receive their values.

`client.Maskdrop` and `client.AsyncMaskdrop` perform the same steps, one with blocking calls and one with `await`:

- `Call`: an HTTP request; its value is the response. A transport error is raised at the `yield`.
- `Sleep`: a pause; its value is the time of a monotonic clock in seconds.
- `Work`: a blocking function, such as reading a file; its value is that of the function.
"""

from __future__ import annotations

import base64
import json
import random
import re
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar

import httpx2

from maskdrop_client.errors import (
    ApiError,
    AuthenticationFailed,
    ConnectionFailed,
    InvalidResponse,
    InvalidUsage,
    JobFailed,
    JobTimedOut,
    error_class,
)
from maskdrop_client.images import S3_URI, ImageInput, LoadedImage, load, upload_name
from maskdrop_client.models import (
    Detections,
    EngineList,
    Health,
    Job,
    JobPage,
    PresetList,
    ResultItem,
    Results,
    SourceUrl,
    StoredFile,
    Subject,
    UploadForm,
    Usage,
    read,
)
from maskdrop_client.options import JobOptions, payload_of
from maskdrop_client.result import Result

T = TypeVar("T")

OPTIONS_HEADER = "X-Maskdrop-Options"
IDEMPOTENCY_HEADER = "Idempotency-Key"

HEADER_MAX = 4000
"""Maximum characters of the options in a header, about half of what common servers accept. Longer options are sent in a
JSON body with the image in base64."""

RETRY_WAIT_MAX_S = 90.0
"""Longest wait before a retry: a rate-limit window of 60 s and the jitter. Above it the error is raised at once."""

BACKOFF_S, BACKOFF_MAX_S = 0.5, 20.0
"""First and longest wait before a retry where the API states none, doubled with each attempt."""

POLL_S, POLL_MAX_S = 0.5, 10.0
"""First and longest wait between two requests for the state of a job, 1.5 times longer with each."""

GATEWAY_ERRORS = (408, 425, 429, 502, 503, 504)
"""Statuses of responses without an error of the API that a retry can mend: those of proxies and gateways."""

MEDIA_TYPES = {
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "jpg": "image/jpeg",
    "zip": "application/zip",
    "json": "application/json",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request. path: below the URL of the API, or a presigned URL, which is requested without the key.

    repeatable: whether a request whose response was lost may be sent once more.
    """

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    json: Any = None
    form: Mapping[str, str] | None = None
    file: tuple[str, bytes] | None = None
    repeatable: bool = True

    @property
    def presigned(self) -> bool:
        return self.path.startswith(("http://", "https://"))


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    function: Callable[[], Any]


Step = Call | Sleep | Work
Flow = Generator[Step, Any, T]


@dataclass(slots=True)
class Rules:
    """retries: attempts after the first. bytes_max: a larger image is sent as a job, since the API refused one of this
    size; None before a refusal."""

    retries: int = 3
    bytes_max: int | None = None


def send(call: Call, rules: Rules) -> Flow[httpx2.Response]:
    """Sends a request and returns its successful response. Retries what can succeed later.

    Raises ApiError, ConnectionFailed, and InvalidResponse for a redirect to another URL.
    """
    for attempt in range(rules.retries + 1):
        is_last = attempt == rules.retries
        try:
            response: httpx2.Response = yield call
        except httpx2.RequestError as error:
            unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
            if is_last or not (unsent or call.repeatable):
                raise ConnectionFailed(
                    f"No response to {call.method} {_shown(call)}: {type(error).__name__} ({error}). Check the URL and "
                    "the network."
                ) from error
            delay = _backoff(attempt)
        else:
            status = response.status_code
            if status < 300 or status == 303:
                return response
            if status < 400:
                raise InvalidResponse(
                    f"{call.method} {_shown(call)} redirects to {response.headers.get('location', '')!r:.200}. Use the "
                    "URL of the API itself."
                )
            failure = api_error(response, presigned=call.presigned)
            delay = _backoff(attempt)
            if failure.retry_after is not None:
                delay = failure.retry_after * random.uniform(1, 1.25)  # noqa: S311  jitter
            if is_last or not failure.retryable or delay > RETRY_WAIT_MAX_S:
                raise failure
        yield Sleep(delay)
    raise AssertionError  # the last attempt returns or raises


def api_error(response: httpx2.Response, *, presigned: bool = False) -> ApiError:
    """Returns the error of a response whose status is at least 400."""
    status, code, message, retryable = response.status_code, "", "", response.status_code in GATEWAY_ERRORS
    try:
        data = response.json()
    except ValueError:
        data = None
    match data:
        case {"error": {"code": str(code), "message": str(message), **more}}:
            retryable = bool(more.get("retryable"))
        case {"message": str(message)} | {"Message": str(message)}:
            pass
    if presigned and (found := re.search("<Code>(.+?)</Code>", response.text)):
        message = f"The storage returned {found[1]}."
    message = message or f"The server returned {status} {response.reason_phrase}."
    kind = error_class(status, code)
    if status == 403 and not (code or presigned):  # of API Gateway, before the API itself
        kind = AuthenticationFailed
    return kind(status, code, message, retryable=retryable, retry_after=_retry_after(response))


def image(
    path: str, source: ImageInput, options: Mapping[str, Any], rules: Rules, timeout_s: float, kind: type
) -> Flow[Result]:
    """POST /v1/cutouts, /v1/masks or /v1/edits. Returns the result, also where the API makes it as a job: the image is
    too large for one request, or no synchronous result is available."""
    loaded: LoadedImage = yield Work(partial(load, source))
    payload = payload_of(options, kind)
    response = yield from _post_image(path, loaded, payload, rules)
    if response is None or response.status_code == 202:
        if response is None:
            job = yield from _submit(loaded, {"task": TASKS[path], **payload} if path in TASKS else payload, rules)
        else:
            job = read(Job, _json(response))
        job = yield from wait(job, timeout_s, rules)
        return (yield from result(job, rules, loaded.stem))
    facts = _facts(response)
    several: tuple[ResultItem, ...] = ()
    content_type = _media_type(response)
    if response.status_code == 303 or (content_type == "application/json" and "detections" not in _json(response)):
        files = read(Results, _json(response))
        several, content_type = files.results, MEDIA_TYPES.get(files.result.format, "application/octet-stream")
        facts |= {"width": files.result.width, "height": files.result.height}
        data = yield from download(files.result, rules)
    else:
        data = response.content
    return Result(data=data, content_type=content_type, results=several, name=loaded.stem, **facts)


TASKS = {"/v1/masks": "mask", "/v1/edits": "replace", "/v1/detections": "detect"}
"""The task of a job, by the path of the synchronous operation."""


def detections(source: ImageInput, options: Mapping[str, Any], rules: Rules, timeout_s: float) -> Flow[Detections]:
    """POST /v1/detections."""
    path = "/v1/detections"
    loaded: LoadedImage = yield Work(partial(load, source))
    payload = payload_of(options)
    response = yield from _post_image(path, loaded, payload, rules)
    if response is not None and response.status_code == 200:
        facts = _facts(response)
        found = read(Detections, _json(response))
        return replace(found, warnings=facts["warnings"], timings=facts["timings"])
    if response is None:
        job = yield from _submit(loaded, {"task": TASKS[path], **payload}, rules)
    elif response.status_code == 303:
        data = yield from download(read(Results, _json(response)).result, rules)
        return read(Detections, _parsed(data))
    else:
        job = read(Job, _json(response))
    job = yield from wait(job, timeout_s, rules)
    made = yield from result(job, rules)
    return replace(read(Detections, _parsed(made.data)), warnings=job.warnings, timings=job.timings)


def submit(
    source: ImageInput, options: Mapping[str, Any], rules: Rules, webhook: str | None, idempotency_key: str | None
) -> Flow[Job]:
    """POST /v1/jobs, after an upload for an image that is not in S3 or at a URL."""
    loaded: LoadedImage = yield Work(partial(load, source))
    payload = payload_of(options, JobOptions)
    if webhook is not None:
        payload["webhook"] = webhook
    return (yield from _submit(loaded, payload, rules, idempotency_key))


def upload(source: ImageInput, rules: Rules) -> Flow[str]:
    """Uploads a file by a presigned form and returns its id, which a job takes as its source."""
    loaded: LoadedImage = yield Work(partial(load, source))
    return (yield from _upload(loaded, rules))


def upload_form(name: str, content_type: str, rules: Rules) -> Flow[UploadForm]:
    """POST /v1/uploads."""
    fields = {"name": upload_name(name), "content_type": content_type}
    response = yield from send(Call("POST", "/v1/uploads", json=fields), rules)
    return read(UploadForm, _json(response))


def job(job_id: str, rules: Rules) -> Flow[Job]:
    """GET /v1/jobs/{job_id}."""
    response = yield from send(Call("GET", f"/v1/jobs/{_checked_id(job_id)}"), rules)
    return read(Job, _json(response))


def jobs(rules: Rules, filters: Mapping[str, str | int | datetime | None]) -> Flow[JobPage]:
    """GET /v1/jobs."""
    params = {
        name: value.isoformat() if isinstance(value, datetime) else str(value)
        for name, value in filters.items()
        if value is not None
    }
    response = yield from send(Call("GET", "/v1/jobs", params=params), rules)
    return read(JobPage, _json(response))


def delete(job_id: str, rules: Rules) -> Flow[None]:
    """DELETE /v1/jobs/{job_id}."""
    yield from send(Call("DELETE", f"/v1/jobs/{_checked_id(job_id)}", repeatable=False), rules)


def retry(job_id: str, rules: Rules) -> Flow[Job]:
    """POST /v1/jobs/{job_id}/retry."""
    response = yield from send(Call("POST", f"/v1/jobs/{_checked_id(job_id)}/retry"), rules)
    return read(Job, _json(response))


def source(job_id: str, rules: Rules) -> Flow[bytes]:
    """GET /v1/jobs/{job_id}/source, and the file at its URL."""
    response = yield from send(Call("GET", f"/v1/jobs/{_checked_id(job_id)}/source"), rules)
    file = yield from send(Call("GET", read(SourceUrl, _json(response)).url), rules)
    return file.content


def review(job_id: str, verdict: str, correction: ImageInput | None, rules: Rules) -> Flow[Job]:
    """POST /v1/jobs/{job_id}/review, after an upload of the correction."""
    path = f"/v1/jobs/{_checked_id(job_id)}/review"
    payload = {"verdict": verdict}
    if correction is not None:
        payload["upload"] = yield from upload(correction, rules)
    response = yield from send(Call("POST", path, json=payload, repeatable=correction is None), rules)
    return read(Job, _json(response))


def wait(
    waited: Job | str, timeout_s: float, rules: Rules, on_change: Callable[[Job], object] | None = None
) -> Flow[Job]:
    """Requests the state of a job until it has finished, and returns the job. on_change: called with each new state.

    Raises JobFailed, and JobTimedOut after `timeout_s` seconds.
    """
    started: float = yield Sleep(0)
    delay, state = POLL_S, ""
    current = waited if isinstance(waited, Job) else (yield from job(waited, rules))
    while True:
        if on_change and current.state != state:
            on_change(current)
        state = current.state
        if current.finished:
            break
        now: float = yield Sleep(delay * random.uniform(0.8, 1.2))  # noqa: S311  jitter
        delay = min(delay * 1.5, POLL_MAX_S)
        current = yield from job(current.id, rules)
        if not current.finished and now - started > timeout_s:
            raise JobTimedOut(f"The job {current.id} is {current.state} after {timeout_s:g} s.", current)
    if current.state == "failed":
        error = current.error
        raise JobFailed(f"The job failed: {f'{error.code}: {error.message}' if error else 'unknown error'}", current)
    return current


def result(finished: Job | str, rules: Rules, name: str = "") -> Flow[Result]:
    """Downloads the result of a job that is done. name: of the source.

    Raises InvalidUsage for a job without a result.
    """
    found = finished
    if isinstance(found, str) or (found.result and not found.result.url):
        found = yield from job(found if isinstance(found, str) else found.id, rules)
    if found.result is None:
        raise InvalidUsage(f"The job {found.id} is {found.state} and has no result; use wait first.")
    try:
        data = yield from download(found.result, rules)
    except ApiError as error:
        if error.status != 403:  # the presigned URL has expired
            raise
        found = yield from job(found.id, rules)
        data = yield from download(found.result or StoredFile("", "", 0, 0, 0, "", ""), rules)
    file = found.result or StoredFile("", "", 0, 0, 0, "", "")
    source_name = found.source.key.rpartition("/")[2]
    return Result(
        data=data,
        content_type=MEDIA_TYPES.get(file.format, "application/octet-stream"),
        width=file.width,
        height=file.height,
        engine=found.engine,
        subject=found.subject,
        warnings=found.warnings,
        timings=found.timings,
        results=found.results,
        job=found,
        name=name or source_name.rpartition(".")[0] or source_name,
    )


def download(file: StoredFile | ResultItem, rules: Rules) -> Flow[bytes]:
    """Downloads a file by its presigned URL, without the API key. Raises InvalidUsage for a file without a URL."""
    stored = file.result if isinstance(file, ResultItem) else file
    if not stored.url:
        raise InvalidUsage("The file has no URL: request its job first, since lists of jobs have no URLs.")
    response = yield from send(Call("GET", stored.url), rules)
    return response.content


def engines(rules: Rules) -> Flow[EngineList]:
    """GET /v1/engines."""
    return read(EngineList, _json((yield from send(Call("GET", "/v1/engines"), rules))))


def presets(rules: Rules) -> Flow[PresetList]:
    """GET /v1/presets."""
    return read(PresetList, _json((yield from send(Call("GET", "/v1/presets"), rules))))


def usage(month: str | None, rules: Rules) -> Flow[Usage]:
    """GET /v1/usage."""
    params = {} if month is None else {"month": month}
    return read(Usage, _json((yield from send(Call("GET", "/v1/usage", params=params), rules))))


def health(rules: Rules) -> Flow[Health]:
    """GET /v1/health."""
    return read(Health, _json((yield from send(Call("GET", "/v1/health"), rules))))


def openapi(rules: Rules) -> Flow[dict[str, Any]]:
    """GET /v1/openapi.json."""
    document: dict[str, Any] = _json((yield from send(Call("GET", "/v1/openapi.json"), rules)))
    return document


def docs(rules: Rules) -> Flow[str]:
    """GET /v1/docs."""
    response = yield from send(Call("GET", "/v1/docs"), rules)
    return response.text


def _post_image(path: str, loaded: LoadedImage, payload: dict[str, Any], rules: Rules) -> Flow[httpx2.Response | None]:
    """Sends an image. Returns None for an image that is too large for a request, and can be sent as a job."""
    content = loaded.content
    if isinstance(content, str):
        if S3_URI.match(content):
            return None
        return (yield from send(Call("POST", path, json={"source": {"url": content}, **payload}), rules))
    if rules.bytes_max is not None and len(content) >= rules.bytes_max:
        return None
    text = json.dumps(payload)
    if len(text) > HEADER_MAX:
        encoded = base64.b64encode(content).decode()
        call = Call("POST", path, json={"image_base64": encoded, **payload})
    else:
        headers = {"Content-Type": "application/octet-stream", OPTIONS_HEADER: text}
        call = Call("POST", path, headers=headers, content=content)
    try:
        return (yield from send(call, rules))
    except ApiError as error:
        if error.status != 413 or error.code not in ("", "file_too_large"):
            raise
        rules.bytes_max = len(content)
        return None


def _submit(
    loaded: LoadedImage, payload: dict[str, Any], rules: Rules, idempotency_key: str | None = None
) -> Flow[Job]:
    source: dict[str, str]
    if isinstance(loaded.content, bytes):
        source = {"upload": (yield from _upload(loaded, rules))}
    elif in_s3 := S3_URI.fullmatch(loaded.content):
        source = {"bucket": in_s3[1], "key": in_s3[2]}
    else:
        source = {"url": loaded.content}
    headers = {IDEMPOTENCY_HEADER: idempotency_key or str(uuid.uuid4())}
    body = {"source": source, **payload}
    response = yield from send(Call("POST", "/v1/jobs", headers=headers, json=body), rules)
    return read(Job, _json(response))


def _upload(loaded: LoadedImage, rules: Rules) -> Flow[str]:
    if isinstance(loaded.content, str):
        raise InvalidUsage("A URL needs no upload: use it as the image of the job.")
    form = yield from upload_form(loaded.name, "application/octet-stream", rules)
    if len(loaded.content) > form.bytes_max:
        raise InvalidUsage(f"The image has {len(loaded.content):,} bytes; an upload may have {form.bytes_max:,}.")
    yield from send(Call("POST", form.url, form=form.fields, file=(loaded.name, loaded.content)), rules)
    return form.upload


def _facts(response: httpx2.Response) -> dict[str, Any]:
    """Returns the fields of a Result that the headers X-Maskdrop-* contain. Raises InvalidResponse."""
    headers = response.headers
    try:
        subject, place, warnings, timings = (
            json.loads(headers[f"X-Maskdrop-{name}"]) for name in ("Subject", "Place", "Warnings", "Timings")
        )
        return {
            "engine": headers["X-Maskdrop-Engine"],
            "width": int(headers["X-Maskdrop-Width"]),
            "height": int(headers["X-Maskdrop-Height"]),
            "subject": read(Subject, subject),
            "place": tuple(place) if place else None,
            "warnings": tuple(warnings),
            "timings": timings,
        }
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidResponse(
            f"The response lacks a header of Maskdrop, or one is invalid ({error}). Check the URL of the API."
        ) from error


def _json(response: httpx2.Response) -> Any:
    return _parsed(response.content)


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise InvalidResponse(f"The response is not JSON: {data[:80]!r}. Check the URL of the API.") from error


def _media_type(response: httpx2.Response) -> str:
    text: str = response.headers.get("content-type", "")
    return text.partition(";")[0].strip().lower()


def _checked_id(job_id: str) -> str:
    """Raises InvalidUsage for text that would change the path of the URL."""
    if not re.fullmatch("[0-9A-Za-z_-]{1,64}", job_id):
        raise InvalidUsage(f"A job id has letters and digits only; got {job_id!r:.80}.")
    return job_id


def _shown(call: Call) -> str:
    """Returns the path of a request, without the signature of a presigned URL."""
    return call.path.partition("?")[0]


def _backoff(attempt: int) -> float:
    """Returns the seconds before the next attempt: half of them fixed, half random."""
    return min(BACKOFF_S * 2.0**attempt, BACKOFF_MAX_S) * random.uniform(0.5, 1)  # noqa: S311  jitter


def _retry_after(response: httpx2.Response) -> float | None:
    """Returns the seconds until a retry can succeed: those of Retry-After, or until the end of the rate-limit window if
    that is later. The current time is that of the server (`Date`)."""
    headers = response.headers
    text, seconds = headers.get("retry-after", ""), None
    date = _moment(headers.get("date", ""))
    if text.isascii() and text.isdigit():
        seconds = float(text)
    elif date and (moment := _moment(text)):
        seconds = max(0.0, moment - date)
    reset = headers.get("x-ratelimit-reset", "")
    if response.status_code == 429 and date and reset.isascii() and reset.isdigit():
        seconds = max(seconds or 0.0, float(reset) - date)
    return seconds


def _moment(text: str) -> float | None:
    """Returns an HTTP date as a Unix timestamp; None for other text."""
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
