"""What the functions need of the world, as small protocols. `lambdas/adapters/` keeps them with boto3, the tests with
fakes. Every method raises only errors of `maskdrop.errors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, State
from maskdrop.presets import Presets
from maskdrop.wire import Invocation, Outcome, Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which jobs to list.

    owner: None: everybody's.
    prefix: of the source's key.
    since, until: of the last change; since is included, until is not.
    """

    owner: str | None = None
    state: State | None = None
    prefix: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """before: the `recency` below which the next page goes on, "" when there is none. A page may be shorter than asked
    for, even empty, and still have a next one: what was looked through for it is bounded."""

    jobs: list[Job]
    before: str


class Jobs(Protocol):
    """The table of jobs. Every change is one conditional write; a method that returns a job returns it as it is after
    the change, or None when its condition did not hold and nothing was written."""

    def claim(self, job: Job) -> bool:
        """Writes a job whose id is not there yet. False when it is."""

    def take(self, job_id: str, *, bundle: str, now: datetime, abandoned: datetime) -> Job | None:
        """queued -> submitted in `bundle`, one attempt more; likewise a job that was submitted before `abandoned`."""

    def give_back(self, job_id: str, *, bundle: str, now: datetime) -> Job | None:
        """queued or submitted -> queued, if it is still `bundle` that last carried it ("": none has)."""

    def done(self, job_id: str, outcome: Outcome, *, bundle: str, cost_usd: float | None, now: datetime) -> Job | None:
        """queued or submitted -> done. A result is true whichever bundle brought it. Saying the same thing twice is
        no fault: a job that is done by this very bundle is returned once more."""

    def fail(self, job_id: str, error: ErrorInfo, *, bundle: str, now: datetime) -> Job | None:
        """queued or submitted -> failed, if it is still `bundle` that last carried it. Likewise repeatable."""

    def retry(self, job: Job, *, now: datetime) -> Job | None:
        """failed -> queued, with the preset and the options that `job` has, all its attempts before it and nothing of
        the last one left."""

    def delete(self, job_id: str, *, state: State) -> bool:
        """Forgets a job that is in `state`. False when it is in another; one that is not there is forgotten."""

    def get(self, job_id: str) -> Job | None: ...

    def page(self, selection: Selection, *, before: str, limit: int) -> Page:
        """The selected jobs, the newest change first, those with a `recency` below `before` ("": all)."""

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        """Jobs in `state` whose last change came before `since`, the oldest first."""


class Queue(Protocol):
    def send(self, bodies: Sequence[str], *, delay_s: int = 0) -> None: ...

    def put_off(self, receipt: str, *, seconds: int) -> None:
        """Hides a received message for so long from now, 12 hours at most; then it comes again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of an object. version_id: its S3 version, or the ETag in a bucket without versions. job: of which
    job it is the result; "" where it is none."""

    version_id: str
    bytes: int
    job: str


@dataclass(frozen=True, slots=True)
class Form:
    """What anyone can post a file with (multipart/form-data): these fields first, the field `file` last."""

    url: str
    fields: dict[str, str]


class Storage(Protocol):
    def look(self, bucket: str, key: str) -> Stored | None:
        """None where there is no such object."""

    def delete(self, bucket: str, key: str) -> None:
        """No fault where there is no such object. In a bucket with versions the last one becomes an old one."""

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Form:
        """For one object of 1 to `bytes_max` bytes, under this very key and type, within `seconds`."""

    def read(self, bucket: str, key: str) -> bytes:
        """Raises SourceMissing when there is no such object."""

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None: ...

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        """An address from which anyone can read the object for `seconds`."""


class Endpoint(Protocol):
    def submit(self, bundle_id: str, input_uri: str) -> None:
        """Hands a bundle that lies at `input_uri` (s3://…) to the endpoint, which answers later by SNS."""


class Interactive(Protocol):
    def cut_out(self, picture: bytes, asked: Invocation) -> Reply:
        """Hands one image to the endpoint and waits for the answer, half a minute at most. Raises the container's own
        errors, EndpointStarting when it was not ready in that time, EndpointUnavailable for the rest."""


class Events(Protocol):
    def publish(self, jobs: Sequence[Job]) -> None:
        """Tells the world of finished jobs."""


Kind = Literal["preset", "key", "window", "idempotency", "usage"]
"""What the registry keeps: named options, API keys, windows of the rate limit, answers to repeated requests, and what
each owner used."""


@dataclass(frozen=True, slots=True)
class Count:
    """Counters of one item of the registry. expires_at: when they end, in whole seconds; None: never."""

    counters: dict[str, int]
    expires_at: datetime | None


class Registry(Protocol):
    """Small things that are found by kind and name. A value is a JSON object; from `expires_at` on, None: never, its
    item is not there."""

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None: ...

    def put(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> None:
        """Writes an item, in the place of any of this name."""

    def put_new(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> bool:
        """Writes an item whose name is free. False when it is not, and nothing is written."""

    def delete(self, kind: Kind, name: str) -> None: ...

    def list(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """Every item of a kind: name -> value, by name."""

    def add(self, kind: Kind, name: str, amounts: Mapping[str, int], *, expires_at: datetime | None = None) -> Count:
        """Adds to the counters of an item, atomically. An item that is not there begins at zero and ends at
        `expires_at`; one that is keeps its own end."""


@dataclass(frozen=True, slots=True)
class Download:
    """An image from the web: its bytes, and the content type that they, not their sender, say."""

    body: bytes
    content_type: str


class Web(Protocol):
    """The web, of which only public hosts are asked (`maskdrop.guard`). Both raise InvalidUrl, BlockedUrl,
    FailedDownload (a host that is none, or has no valid certificate) and HostUnavailable."""

    def fetch(self, url: str) -> Download:
        """Raises TooManyRedirects, FileTooLarge, EmptyFile and UnsupportedFormat as well."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """The HTTP status of the answer. Follows no redirect and never goes by plain http but to trusted hosts."""


@dataclass(frozen=True, slots=True)
class Services:
    jobs: Jobs
    jobs_queue: Queue
    storage: Storage
    endpoint: Endpoint
    events: Events
    registry: Registry
    interactive: Interactive
    web: Web
    webhooks_queue: Queue
    presets: Presets
