"""Protocols of the services that the functions use. `lambdas/adapters/` implements them with boto3, the tests with
fakes. Every method raises only errors of `maskdrop.errors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol

from maskdrop.edit import Candidate, Change, Edit, Stage
from maskdrop.errors import ErrorInfo
from maskdrop.job import Job, Review, State
from maskdrop.png import png_size
from maskdrop.presets import Presets
from maskdrop.wire import ImageResponse, Invocation, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filters for a list of jobs.

    owner: None for the jobs of all owners.
    prefix: prefix of the source's key.
    since, until: range of the last change; since is inclusive, until is exclusive.
    """

    owner: str | None = None
    state: State | None = None
    prefix: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list of jobs.

    before: the `recency` before which the next page starts; "" on the last page. Because the number of scanned records
    is limited, a page may be short or empty and still have a next one.
    """

    jobs: list[Job]
    before: str


class Jobs(Protocol):
    """The table of jobs. Every change is one conditional write. A method that returns a job returns its state after the
    change, or None where the condition failed and nothing was written."""

    def claim(self, job: Job) -> bool:
        """Writes a job with a new id. False where a job with this id exists."""

    def take(self, job_id: str, *, bundle: str, now: datetime, abandoned: datetime) -> Job | None:
        """queued -> submitted in `bundle`, with one more attempt. Also a job that was submitted before `abandoned`, in
        the same attempt. Repeatable: the AWS SDK sends a request again when its response is lost."""

    def requeue(self, job_id: str, *, bundle: str, now: datetime, give_back: bool = False) -> Job | None:
        """queued or submitted -> queued, if its bundle is still `bundle` ("": never submitted). Repeatable.

        give_back: whether the job gets the attempt of this submission back. A job that is queued already got it back
        before, and keeps its attempts.
        """

    def done(self, job_id: str, outcome: Outcome, *, bundle: str, cost_usd: float | None, now: datetime) -> Job | None:
        """queued or submitted -> done, for a result of any bundle, which becomes the job's. Repeatable: a job that this
        bundle has already finished is returned again."""

    def fail(self, job_id: str, error: ErrorInfo, *, bundle: str, now: datetime) -> Job | None:
        """queued or submitted -> failed, if its bundle is still `bundle`. Repeatable."""

    def advance(
        self,
        job_id: str,
        stage: Stage,
        *,
        bundle: str,
        now: datetime,
        outcome: Outcome | None = None,
        candidates: Sequence[Candidate] | None = None,
        cost_usd: float | None = None,
    ) -> Job | None:
        """queued or submitted -> queued in the next stage of its edit, with no attempts, if its bundle is still
        `bundle`. Repeatable: a job that is queued in `stage` already is returned again.

        outcome: its subject, warnings and timings become the job's. candidates: the generated images so far.
        cost_usd: cost of the job so far; None leaves it unchanged.
        """

    def retry(self, job: Job, *, now: datetime) -> Job | None:
        """failed -> queued, with the preset, options, stage and candidates of `job`; attempts are reset and the last
        outcome is removed."""

    def review(self, job_id: str, review: Review) -> Job | None:
        """done -> done, with a review. `changed_at` stays."""

    def delete(self, job_id: str, *, state: State) -> bool:
        """Deletes a job in `state`. False where it is in another state; True where it does not exist."""

    def get(self, job_id: str) -> Job | None: ...

    def page(self, selection: Selection, *, before: str, limit: int) -> Page:
        """The selected jobs with a `recency` below `before` ("": all), the latest change first."""

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        """Jobs in `state` whose last change was before `since`, the oldest first."""


class Queue(Protocol):
    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:
        """Sends messages. group: message group, by which SQS delivers fairly; "" for messages without an owner."""

    def hide(self, receipt: str, *, seconds: int) -> None:
        """Sets the visibility timeout of a received message, at most 12 hours; it is redelivered after it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Metadata of an object. version_id: its S3 version, or the ETag in a bucket without versions. job: id of the job
    whose result it is; "" for other objects."""

    version_id: str
    bytes: int
    job: str


@dataclass(frozen=True, slots=True)
class Form:
    """A presigned form for an upload (multipart/form-data): these fields first, then the field `file`."""

    url: str
    fields: dict[str, str]


class Storage(Protocol):
    def head(self, bucket: str, key: str) -> Stored | None:
        """Metadata of an object; None where it does not exist."""

    def delete(self, bucket: str, key: str) -> None:
        """Deletes an object, if it exists. In a bucket with versions, the last one becomes noncurrent."""

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Form:
        """A presigned form for one object of 1 to `bytes_max` bytes with this key and type, valid for `seconds`."""

    def read(self, bucket: str, key: str) -> bytes:
        """Raises SourceMissing where the object does not exist."""

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None: ...

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        """Copies an object with its content type. Raises SourceMissing where it does not exist."""

    def tags(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        """Version and tags of an object, in a bucket with versions. Raises SourceMissing where it does not exist."""

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        """A presigned URL of the object, valid for `seconds`."""


class Endpoint(Protocol):
    def submit(self, bundle_id: str, input_uri: str) -> None:
        """Queues the bundle at `input_uri` (s3://…) for the endpoint. A notification follows on the results queue."""


class Serverless(Protocol):
    def invoke(self, bundle: bytes) -> bytes:
        """Sends a bundle to the serverless endpoint and returns the container's response, after 60 s at most.

        Raises EndpointFailed where the container failed or did not respond in time, EndpointUnavailable where the
        endpoint did not accept the bundle.
        """


class Interactive(Protocol):
    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        """Invokes the interactive endpoint with one image and waits for the response, 30 s at most. Raises the
        container's errors, EndpointStarting where the endpoint does not exist yet or no instance was ready in time,
        EndpointUnavailable otherwise."""

    def segment_box(self, request: bytes) -> bytes:
        """Invokes it with the JSON of an older system (maskdrop/predecessor.py), which must be valid, and returns the
        response's JSON. Raises as `cut_out` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EditRequest:
    """One image to generate, in the same form for every editor.

    image: JPEG within the editor's limits. mask: 8-bit grey PNG of its size, 255 on the subject, 0 elsewhere. change:
    the part to generate. width, height: of both, in pixels.
    """

    image: bytes
    mask: bytes
    width: int
    height: int
    change: Change
    prompt: str
    negative_prompt: str
    seed: int

    @classmethod
    def of(cls, edit: Edit, image: bytes, mask: bytes) -> EditRequest:
        """The request of an edit, without prompt and seed. Raises UnreadableImage for a mask that is not a PNG."""
        width, height = png_size(mask)
        return cls(
            image=image,
            mask=mask,
            width=width,
            height=height,
            change=edit.change,
            prompt="",
            negative_prompt=edit.negative_prompt,
            seed=0,
        )


@dataclass(frozen=True, slots=True)
class EditedImage:
    """A generated image. cost_usd: its price in US dollars."""

    data: bytes
    content_type: str
    model: str
    cost_usd: float


class Editor(Protocol):
    """Generates images from text.

    usd_per_image: price of one image in US dollars, which is reserved before the call. 0: nothing is billed.
    """

    usd_per_image: float

    def check(self, prompt: str, change: Change = "background") -> None:
        """Raises TextNotSupported for a text that this editor cannot generate in this part of an image."""

    def edit(self, request: EditRequest) -> EditedImage:
        """Generates one image. Raises EditorUnavailable (also while the circuit breaker is open), EditFiltered,
        EditRefused, ModelRetired, ModelNotInRegion, NotAllowed and TextNotSupported."""


class Events(Protocol):
    def publish(self, jobs: Sequence[Job]) -> None:
        """Publishes the events of finished jobs."""


Kind = Literal[
    "preset",
    "key",
    "window",
    "idempotency",
    "usage",
    "valve",
    "cap",
    "edit",
    "circuit",
    "chat",
    "slot",
    "receiver",
    "secret",
]
"""Kinds of items in the registry: presets, API keys, rate-limit windows, stored responses of idempotent requests, usage
per owner and month, bundles at the endpoint (`maskdrop.valve`), spending caps of owners (`maskdrop.spending`),
candidates of edits (`maskdrop.editing`), states of circuit breakers, which Powertools writes, albums and sent results
of chats (`maskdrop.bot`), calls in progress (`maskdrop.slots`), failures of webhook receivers, and webhook secrets."""


@dataclass(frozen=True, slots=True)
class Count:
    """Counters of one item of the registry. expires_at: expiry in whole seconds; None: never."""

    counters: dict[str, int]
    expires_at: datetime | None


class Registry(Protocol):
    """A table of small items by kind and name. A value is a JSON object. An item expires at `expires_at` (None:
    never)."""

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None: ...

    def put(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> None:
        """Writes an item and replaces one of the same name."""

    def put_new(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> bool:
        """Writes an item with a new name. False, without a write, where the name exists."""

    def delete(self, kind: Kind, name: str) -> None: ...

    def list(self, kind: Kind) -> dict[str, dict[str, Any]]:
        """All items of a kind: name -> value, sorted by name."""

    def add(self, kind: Kind, name: str, amounts: Mapping[str, int], *, expires_at: datetime | None = None) -> Count:
        """Adds to the counters of an item, atomically. A new item starts at zero and expires at `expires_at`; an
        existing one keeps its expiry."""


@dataclass(frozen=True, slots=True)
class Download:
    """A fetched image: its bytes, and the content type by magic number."""

    body: bytes
    content_type: str


class Web(Protocol):
    """HTTP requests to public hosts, with SSRF protection (`maskdrop.ssrf`). Methods raise InvalidUrl, BlockedUrl,
    FailedDownload (also for an unknown host or an invalid certificate) and HostUnavailable."""

    def fetch(self, url: str) -> Download:
        """Downloads an image. Also raises TooManyRedirects, FileTooLarge, EmptyFile and UnsupportedFormat."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        """Posts a body and returns the response's status. Follows no redirect; plain http to trusted hosts only."""


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
    bundles_queue: Queue
    results_queue: Queue
    edits_queue: Queue
    serverless: Serverless
    editor: Editor
    presets: Presets


class RetryServices(Protocol):
    """The services that retry a job: those of a function, or those of the command line."""

    @property
    def jobs(self) -> Jobs: ...

    @property
    def jobs_queue(self) -> Queue: ...

    @property
    def edits_queue(self) -> Queue: ...

    @property
    def presets(self) -> Presets: ...
