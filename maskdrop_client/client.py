"""The clients: `Maskdrop` with blocking calls, `AsyncMaskdrop` with the same methods for `await`.

Both perform the steps of `maskdrop_client.flows`. METHODS maps each operation of the OpenAPI document to its method.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack

import anyio
import httpx2
from anyio import to_thread

from maskdrop_client import flows
from maskdrop_client.errors import AuthenticationFailed, ClientError, InvalidUsage
from maskdrop_client.flows import Call, Flow, Rules, Sleep, Step, Work
from maskdrop_client.images import ImageInput
from maskdrop_client.models import (
    Detections,
    Engine,
    Health,
    Job,
    JobPage,
    Preset,
    ResultItem,
    StoredFile,
    UploadForm,
    Usage,
)
from maskdrop_client.options import JobOptions, Options
from maskdrop_client.result import Outcome, Result

T = TypeVar("T")

URL_VARIABLE, KEY_VARIABLE = "MASKDROP_API_URL", "MASKDROP_API_KEY"

TIMEOUT_S = 120.0
"""Timeout of one request, in seconds. A synchronous result takes at most 29 s behind API Gateway; the rest is for the
transfer and for `maskdrop serve` on a busy machine."""

CONNECT_S = 10.0

WAIT_S = 900.0
"""How long a result of a job is waited for, in seconds. The bulk endpoint may need 10 minutes to start an instance."""

METHODS = {
    "cut_out": "cutout",
    "mask": "mask",
    "detect": "detect",
    "edit": "edit",
    "upload": "upload_form",
    "new_job": "submit",
    "list_jobs": "jobs",
    "get_job": "job",
    "delete_job": "delete",
    "retry_job": "retry",
    "get_source": "source",
    "review_job": "review",
    "engines": "engines",
    "presets": "presets",
    "usage": "usage",
    "health": "health",
    "openapi": "openapi",
    "docs": "docs",
}
"""The method of each operation, by its operationId."""

Method = Literal["cutout", "mask", "detect", "edit"]
Edit = str | Mapping[str, Any]
State = Literal["queued", "submitted", "done", "failed"]
Verdict = Literal["accepted", "corrected"]


@dataclass(frozen=True, slots=True)
class _Api:
    """The URL and the key of an API. The key is in no message and no representation."""

    url: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, url: str | None, key: str | None) -> _Api:
        """Reads the environment for what is None. Raises InvalidUsage."""
        text = (os.environ.get(URL_VARIABLE, "") if url is None else url).strip().rstrip("/")
        secret = (os.environ.get(KEY_VARIABLE, "") if key is None else key).strip()
        if not text:
            raise InvalidUsage(f"The URL of the API is missing: use url=, or set {URL_VARIABLE}.")
        try:
            parsed = httpx2.URL(text)
        except httpx2.InvalidURL:
            parsed = httpx2.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise InvalidUsage(f"The URL of the API must be http(s)://host, with or without a path; got {text!r:.200}.")
        if not all("!" <= character <= "~" for character in secret):
            raise InvalidUsage("The API key must be printable ASCII without spaces.")
        return cls(text.removesuffix("/v1"), secret)

    def arguments(self, call: Call) -> dict[str, Any]:
        """Returns the arguments of httpx2's `request`. The key goes to the API only, never to a presigned URL."""
        headers = dict(call.headers)
        if call.presigned:
            url = call.path
        else:
            url = self.url + call.path
            if self.key:
                headers["X-Api-Key"] = self.key
        return {
            "method": call.method,
            "url": url,
            "params": dict(call.params) or None,
            "headers": headers,
            "content": call.content,
            "json": call.json,
            "data": call.form,
            "files": {"file": call.file} if call.file else None,
            "follow_redirects": False,
        }


def _settings(timeout_s: float, connections: int, verify: ssl.SSLContext | bool) -> dict[str, Any]:
    return {
        "timeout": httpx2.Timeout(timeout_s, connect=CONNECT_S),
        "limits": httpx2.Limits(max_connections=connections, max_keepalive_connections=connections),
        "headers": {"User-Agent": "maskdrop-client"},
        "verify": verify,
    }


class Maskdrop:
    """A client of the API. It is safe to use from several threads; close it, or use it in a `with` statement.

    url: of the API, with or without /v1; None: MASKDROP_API_URL.
    key: the API key; None: MASKDROP_API_KEY; "" for an API without keys.
    timeout_s: of one request.
    retries: attempts after the first, only after errors that a retry can mend.
    connections: maximum open connections.
    verify: as in httpx2, such as an SSLContext with another CA.
    transport: another transport of httpx2, for tests.

    Every method raises `ClientError`: ApiError for an error of the API, ConnectionFailed without a response,
    InvalidUsage for an invalid argument. A file that cannot be read raises OSError.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: int = 3,
        connections: int = 32,
        verify: ssl.SSLContext | bool = True,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._api = _Api.of(url, key)
        self._rules = Rules(retries)
        self._http = httpx2.Client(transport=transport, **_settings(timeout_s, connections, verify))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._api.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def cutout(self, image: ImageInput, *, wait_s: float = WAIT_S, **options: Unpack[Options]) -> Result:
        """Cuts out the subject of an image. An image that is too large for one request is uploaded and processed as a
        job; `wait_s` limits the wait for it, in seconds."""
        return self._run(flows.image("/v1/cutouts", image, options, self._rules, wait_s, Options))

    def mask(self, image: ImageInput, *, wait_s: float = WAIT_S, **options: Unpack[Options]) -> Result:
        """Returns the mask of the subject: 255 on the subject, 0 elsewhere. wait_s: as for `cutout`."""
        return self._run(flows.image("/v1/masks", image, options, self._rules, wait_s, Options))

    def detect(self, image: ImageInput, *, wait_s: float = WAIT_S, **options: Unpack[Options]) -> Detections:
        """Detects the instances of the labels of `prompt`, by default of all labels. wait_s: as for `cutout`."""
        return self._run(flows.detections(image, options, self._rules, wait_s))

    def edit(
        self, image: ImageInput, edit: Edit | None = None, *, wait_s: float = WAIT_S, **options: Unpack[Options]
    ) -> Result:
        """Replaces the background of an image: by `background` of the options, or by images that are generated from the
        text `edit`, which may cost money. wait_s: as for `cutout`."""
        merged = {**options, "edit": edit}
        return self._run(flows.image("/v1/edits", image, merged, self._rules, wait_s, JobOptions))

    def submit(
        self,
        image: ImageInput,
        *,
        webhook: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Creates a job and returns it at once. The image is uploaded first, unless it is a URL or s3://bucket/key.

        idempotency_key: the same key returns the same response for 24 hours; by default a new one for each call.
        """
        return self._run(flows.submit(image, options, self._rules, webhook, idempotency_key))

    def upload(self, image: ImageInput) -> str:
        """Uploads a file by a presigned form. Returns its id, for the source {"upload": …} of a job."""
        return self._run(flows.upload(image, self._rules))

    def upload_form(self, name: str, content_type: str = "application/octet-stream") -> UploadForm:
        """Creates a presigned form for one file, for a program that uploads by itself."""
        return self._run(flows.upload_form(name, content_type, self._rules))

    def wait(self, job: Job | str, *, wait_s: float = WAIT_S, on_change: Callable[[Job], object] | None = None) -> Job:
        """Waits until a job has finished, and returns it. on_change: called with the job at each new state.

        Raises JobFailed, and JobTimedOut after `wait_s` seconds.
        """
        return self._run(flows.wait(job, wait_s, self._rules, on_change))

    def result(self, job: Job | str) -> Result:
        """Downloads the result of a job that is done."""
        return self._run(flows.result(job, self._rules))

    def download(self, file: StoredFile | ResultItem) -> bytes:
        """Downloads one file of a result, such as an instance in `Result.results`."""
        return self._run(flows.download(file, self._rules))

    def job(self, job_id: str) -> Job:
        """Returns a job."""
        return self._run(flows.job(job_id, self._rules))

    def jobs(
        self,
        *,
        state: State | None = None,
        prefix: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Returns one page of jobs, most recently changed first. prefix: of the source's S3 key. since, until: times of
        the last change, with a UTC offset. cursor: of the previous page."""
        filters = {"state": state, "prefix": prefix, "since": since, "until": until, "limit": limit, "cursor": cursor}
        return self._run(flows.jobs(self._rules, filters))

    def all_jobs(
        self,
        *,
        state: State | None = None,
        prefix: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> Iterator[Job]:
        """Yields the jobs of all pages, which are requested when they are needed."""
        cursor: str | None = None
        while True:
            page = self.jobs(state=state, prefix=prefix, since=since, until=until, limit=200, cursor=cursor)
            yield from page.jobs
            cursor = page.cursor
            if cursor is None:
                return

    def delete(self, job_id: str) -> None:
        """Deletes a job and its images."""
        self._run(flows.delete(job_id, self._rules))

    def retry(self, job_id: str) -> Job:
        """Retries a failed job."""
        return self._run(flows.retry(job_id, self._rules))

    def source(self, job_id: str) -> bytes:
        """Downloads the source of a job."""
        return self._run(flows.source(job_id, self._rules))

    def review(self, job_id: str, verdict: Verdict, correction: ImageInput | None = None) -> Job:
        """Accepts the result of a job, or states that it was corrected.

        correction: the corrected cut-out, a PNG with alpha and the size of the upright source, which the operator keeps
        as a training record; needs the verdict "corrected".
        """
        return self._run(flows.review(job_id, verdict, correction, self._rules))

    def engines(self) -> tuple[Engine, ...]:
        """Returns the engines."""
        return self._run(flows.engines(self._rules)).engines

    def presets(self) -> tuple[Preset, ...]:
        """Returns the presets."""
        return self._run(flows.presets(self._rules)).presets

    def usage(self, month: str | None = None) -> Usage:
        """Returns the usage in a month (UTC), such as 2026-11; by default the current one."""
        return self._run(flows.usage(month, self._rules))

    def health(self) -> Health:
        """Returns the state of the service. It needs no key."""
        return self._run(flows.health(self._rules))

    def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document."""
        return self._run(flows.openapi(self._rules))

    def docs(self) -> str:
        """Returns the HTML page of the OpenAPI document."""
        return self._run(flows.docs(self._rules))

    def map(
        self, images: Iterable[ImageInput], method: Method = "cutout", *, workers: int = 4, **options: Any
    ) -> Iterator[Outcome]:
        """Processes many images by a method and yields an Outcome for each, in the order in which they finish.

        workers: images in work at a time. At most that many images and results are in memory. options: arguments of the
        method. The error of an image is in its outcome; AuthenticationFailed, which all would have, is raised.
        """
        function = getattr(self, _checked_method(method, workers))
        rest = iter(images)
        with ThreadPoolExecutor(workers, thread_name_prefix="maskdrop") as pool:
            running: set[Future[Outcome]] = set()
            finished: deque[Future[Outcome]] = deque()
            try:
                while True:
                    while len(running) + len(finished) < workers:
                        try:
                            image = next(rest)
                        except StopIteration:
                            break
                        running.add(pool.submit(_outcome, function, image, options))
                    if not finished:
                        if not running:
                            return
                        done, running = wait_for(running, return_when=FIRST_COMPLETED)
                        finished.extend(done)
                    yield finished.popleft().result()
            finally:
                for one in running:
                    one.cancel()

    def _run(self, flow: Flow[T]) -> T:
        """Performs the steps of an operation."""
        try:
            step = next(flow)
            while True:
                try:
                    value = self._perform(step)
                except (httpx2.RequestError, OSError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(value)
        except StopIteration as end:
            returned: T = end.value
            return returned

    def _perform(self, step: Step) -> Any:
        match step:
            case Call():
                return self._http.request(**self._api.arguments(step))
            case Sleep(seconds):
                return self._sleep(seconds)
            case Work(function):
                return function()

    def _sleep(self, seconds: float) -> float:
        time.sleep(seconds)
        return time.monotonic()


class AsyncMaskdrop:
    """The client for `async` code: the methods and arguments of `Maskdrop`, with `await`.

    Files are read, and Pillow images encoded, in a thread. `map` needs asyncio; the other methods also run with trio.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        retries: int = 3,
        connections: int = 32,
        verify: ssl.SSLContext | bool = True,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._api = _Api.of(url, key)
        self._rules = Rules(retries)
        self._http = httpx2.AsyncClient(transport=transport, **_settings(timeout_s, connections, verify))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._api.url!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def cutout(self, image: ImageInput, *, wait_s: float = WAIT_S, **options: Unpack[Options]) -> Result:
        """Cuts out the subject of an image; see `Maskdrop.cutout`."""
        return await self._run(flows.image("/v1/cutouts", image, options, self._rules, wait_s, Options))

    async def mask(self, image: ImageInput, *, wait_s: float = WAIT_S, **options: Unpack[Options]) -> Result:
        """Returns the mask of the subject; see `Maskdrop.mask`."""
        return await self._run(flows.image("/v1/masks", image, options, self._rules, wait_s, Options))

    async def detect(self, image: ImageInput, *, wait_s: float = WAIT_S, **options: Unpack[Options]) -> Detections:
        """Detects the instances of labels; see `Maskdrop.detect`."""
        return await self._run(flows.detections(image, options, self._rules, wait_s))

    async def edit(
        self, image: ImageInput, edit: Edit | None = None, *, wait_s: float = WAIT_S, **options: Unpack[Options]
    ) -> Result:
        """Replaces the background of an image; see `Maskdrop.edit`."""
        merged = {**options, "edit": edit}
        return await self._run(flows.image("/v1/edits", image, merged, self._rules, wait_s, JobOptions))

    async def submit(
        self,
        image: ImageInput,
        *,
        webhook: str | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[JobOptions],
    ) -> Job:
        """Creates a job and returns it at once; see `Maskdrop.submit`."""
        return await self._run(flows.submit(image, options, self._rules, webhook, idempotency_key))

    async def upload(self, image: ImageInput) -> str:
        """Uploads a file by a presigned form; see `Maskdrop.upload`."""
        return await self._run(flows.upload(image, self._rules))

    async def upload_form(self, name: str, content_type: str = "application/octet-stream") -> UploadForm:
        """Creates a presigned form for one file."""
        return await self._run(flows.upload_form(name, content_type, self._rules))

    async def wait(
        self, job: Job | str, *, wait_s: float = WAIT_S, on_change: Callable[[Job], object] | None = None
    ) -> Job:
        """Waits until a job has finished, and returns it; see `Maskdrop.wait`."""
        return await self._run(flows.wait(job, wait_s, self._rules, on_change))

    async def result(self, job: Job | str) -> Result:
        """Downloads the result of a job that is done."""
        return await self._run(flows.result(job, self._rules))

    async def download(self, file: StoredFile | ResultItem) -> bytes:
        """Downloads one file of a result."""
        return await self._run(flows.download(file, self._rules))

    async def job(self, job_id: str) -> Job:
        """Returns a job."""
        return await self._run(flows.job(job_id, self._rules))

    async def jobs(
        self,
        *,
        state: State | None = None,
        prefix: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> JobPage:
        """Returns one page of jobs; see `Maskdrop.jobs`."""
        filters = {"state": state, "prefix": prefix, "since": since, "until": until, "limit": limit, "cursor": cursor}
        return await self._run(flows.jobs(self._rules, filters))

    async def all_jobs(
        self,
        *,
        state: State | None = None,
        prefix: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> AsyncIterator[Job]:
        """Yields the jobs of all pages, which are requested when they are needed."""
        cursor: str | None = None
        while True:
            page = await self.jobs(state=state, prefix=prefix, since=since, until=until, limit=200, cursor=cursor)
            for one in page.jobs:
                yield one
            cursor = page.cursor
            if cursor is None:
                return

    async def delete(self, job_id: str) -> None:
        """Deletes a job and its images."""
        await self._run(flows.delete(job_id, self._rules))

    async def retry(self, job_id: str) -> Job:
        """Retries a failed job."""
        return await self._run(flows.retry(job_id, self._rules))

    async def source(self, job_id: str) -> bytes:
        """Downloads the source of a job."""
        return await self._run(flows.source(job_id, self._rules))

    async def review(self, job_id: str, verdict: Verdict, correction: ImageInput | None = None) -> Job:
        """Accepts the result of a job, or states that it was corrected; see `Maskdrop.review`."""
        return await self._run(flows.review(job_id, verdict, correction, self._rules))

    async def engines(self) -> tuple[Engine, ...]:
        """Returns the engines."""
        return (await self._run(flows.engines(self._rules))).engines

    async def presets(self) -> tuple[Preset, ...]:
        """Returns the presets."""
        return (await self._run(flows.presets(self._rules))).presets

    async def usage(self, month: str | None = None) -> Usage:
        """Returns the usage in a month (UTC); see `Maskdrop.usage`."""
        return await self._run(flows.usage(month, self._rules))

    async def health(self) -> Health:
        """Returns the state of the service. It needs no key."""
        return await self._run(flows.health(self._rules))

    async def openapi(self) -> dict[str, Any]:
        """Returns the OpenAPI document."""
        return await self._run(flows.openapi(self._rules))

    async def docs(self) -> str:
        """Returns the HTML page of the OpenAPI document."""
        return await self._run(flows.docs(self._rules))

    async def map(
        self, images: Iterable[ImageInput], method: Method = "cutout", *, workers: int = 4, **options: Any
    ) -> AsyncIterator[Outcome]:
        """Processes many images by a method and yields an Outcome for each as it finishes; see `Maskdrop.map`.

        Close the iterator (`contextlib.aclosing`) where a loop may end early.
        """
        function = getattr(self, _checked_method(method, workers))
        rest = iter(images)
        running: set[asyncio.Task[Outcome]] = set()
        finished: deque[asyncio.Task[Outcome]] = deque()
        try:
            while True:
                while len(running) + len(finished) < workers:
                    try:
                        image = next(rest)
                    except StopIteration:
                        break
                    running.add(asyncio.ensure_future(_async_outcome(function, image, options)))
                if not finished:
                    if not running:
                        return
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    finished.extend(done)
                yield finished.popleft().result()
        finally:
            for one in running:
                one.cancel()

    async def _run(self, flow: Flow[T]) -> T:
        """Performs the steps of an operation."""
        try:
            step = next(flow)
            while True:
                try:
                    value = await self._perform(step)
                except (httpx2.RequestError, OSError) as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(value)
        except StopIteration as end:
            returned: T = end.value
            return returned

    async def _perform(self, step: Step) -> Any:
        match step:
            case Call():
                return await self._http.request(**self._api.arguments(step))
            case Sleep(seconds):
                return await self._sleep(seconds)
            case Work(function):
                return await to_thread.run_sync(function)

    async def _sleep(self, seconds: float) -> float:
        await anyio.sleep(seconds)
        return anyio.current_time()


def _checked_method(method: str, workers: int) -> str:
    """Raises InvalidUsage for arguments of `map` that are not accepted."""
    if method not in ("cutout", "mask", "detect", "edit"):
        raise InvalidUsage(f'The method of map must be "cutout", "mask", "detect" or "edit"; got {method!r}.')
    if workers < 1:
        raise InvalidUsage(f"workers must be at least 1; got {workers}.")
    return method


def _outcome(function: Callable[..., Any], image: ImageInput, options: Mapping[str, Any]) -> Outcome:
    try:
        return Outcome(image, function(image, **options))
    except AuthenticationFailed:
        raise
    except (ClientError, OSError) as error:
        return Outcome(image, error=error)


async def _async_outcome(function: Callable[..., Any], image: ImageInput, options: Mapping[str, Any]) -> Outcome:
    try:
        return Outcome(image, await function(image, **options))
    except AuthenticationFailed:
        raise
    except (ClientError, OSError) as error:
        return Outcome(image, error=error)
