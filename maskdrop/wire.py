"""JSON messages between functions, container and queues: bundles, their responses, job messages.

A bundle (JSON, at most BUNDLE_MAX items):

    {"bundle": "…", "items": [{"id", "source", "result": {"bucket", "key"}, "task", "engine", "prompt", "output",
        "stage", "candidates", "editor", "trace_id"}]}

Its response, with one outcome for each item:

    {"bundle": "…", "device": "cpu", "wall_ms": 812.0, "usd_per_hour": null, "outcomes": [
        {"id", "engine", "result": {…}, "results": […], "subject": {…}, "warnings": […], "timings": {…},
         "error": null} |
        {"id", "engine", "next_stage": "edit", "subject": {…}, …} |
        {"id", "engine", "error": {"code", "message", "retryable"}, "timings": {…}}]}

A single image is the body of a request whose header CUSTOM_ATTRIBUTES contains the options as JSON, at most 1,024
characters, and the destination of a result that is too large for the response:

    {"task", "engine", "prompt", "output", "overflow": {"bucket", "key", "bytes_max"}}

The response is the result, or {"result": {…}, "results": […]} where it was written to that destination; several
results always are. The same header contains `Facts`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import unquote_plus

from maskdrop.edit import Candidate, EditorName, Stage
from maskdrop.errors import ErrorInfo, InvalidOptions
from maskdrop.job import Job, Result, ResultItem, Source, Subject
from maskdrop.options import JSON_FIELDS, Options
from maskdrop.record import Decimals, Inline, Record

BUNDLE_MAX = 64
"""Items in one bundle: about 21 kB of JSON, and 12 s of processing at 5 images a second."""

STARTED_PREFIX = "bundles/started/"
"""Key prefix of the empty objects that the container writes before it processes a bundle, in the results bucket. One
PUT of $0.000005 for 64 images costs $0.00008 per 1,000 images."""

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CUSTOM_ATTRIBUTES_MAX = 1024
"""Characters that SageMaker allows in that header."""

RESULT_OF = "maskdrop-job"
"""Metadata field of a result in S3: the id of its job."""


@dataclass(frozen=True, slots=True)
class Overflow(Record):
    """Destination of a result of more than `bytes_max` bytes."""

    bucket: str
    key: str
    bytes_max: int

    @classmethod
    def from_json(cls, data: Any) -> Overflow:
        """Raises InvalidOptions."""
        match data:
            case {"bucket": str(bucket), "key": str(key), "bytes_max": int(bytes_max)} if len(data) == 3:
                return cls(bucket, key, bytes_max)
        raise InvalidOptions('"overflow" must be an object with bucket, key and bytes_max.')


@dataclass(frozen=True, slots=True)
class Invocation:
    """The request for a single image."""

    options: Options
    overflow: Overflow | None = None

    def to_header(self) -> str:
        """ASCII. May exceed CUSTOM_ATTRIBUTES_MAX where there are many prompts."""
        more = {"overflow": self.overflow.to_json()} if self.overflow else {}
        return json.dumps({**self.options.to_json(), **more}, separators=(",", ":"))

    @classmethod
    def from_header(cls, text: str) -> Invocation:
        """Raises InvalidOptions and what `Options.from_json` raises."""
        if len(text) > CUSTOM_ATTRIBUTES_MAX:
            raise InvalidOptions(
                f"The header {CUSTOM_ATTRIBUTES} must have at most {CUSTOM_ATTRIBUTES_MAX} characters; got {len(text)}."
            )
        try:
            data = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidOptions(f"The header {CUSTOM_ATTRIBUTES} must be JSON.") from error
        overflow = data.pop("overflow", None) if isinstance(data, dict) else None
        return cls(Options.from_json(data), None if overflow is None else Overflow.from_json(overflow))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Record):
    """Properties of one result.

    width, height: of the result, in pixels.
    full: width and height of the result in the size "original".
    place: box of the subject in the result, x0, y0, x1, y1 in pixels; None without a subject.
    timings: milliseconds by stage.
    """

    engine: str
    device: str
    width: int
    height: int
    full: tuple[int, int]
    subject: Subject
    place: tuple[int, int, int, int] | None
    timings: dict[str, float]
    warnings: tuple[str, ...]

    def to_header(self) -> str:
        """ASCII. The last warnings are omitted where the text would exceed CUSTOM_ATTRIBUTES_MAX."""
        data = self.to_json()
        while len(text := json.dumps(data, separators=(",", ":"))) > CUSTOM_ATTRIBUTES_MAX and data["warnings"]:
            data["warnings"].pop()
        return text

    @classmethod
    def from_header(cls, text: str) -> Facts:
        return cls.from_json(json.loads(text))


@dataclass(frozen=True, slots=True)
class ImageResponse:
    """The response for a single image. file: its bytes, or its location in S3. content_type: type of the file.
    results: of several instances."""

    facts: Facts
    content_type: str
    file: bytes | Result
    results: tuple[ResultItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination(Record):
    """The object in S3 that a result is written to."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Item(Record):
    """One image of a bundle: source, options and destination.

    stage: stage of the job: "segment", or "compose" for the candidates of an edit.
    editor: the stage's editor, whose limits apply to the image that the container stores for it.
    """

    id: str
    source: Source
    result: Destination
    options: Annotated[Options, Inline(JSON_FIELDS)]
    stage: Stage = "segment"
    candidates: tuple[Candidate, ...] = ()
    editor: EditorName = "local"
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    id: str
    items: tuple[Item, ...]

    def to_bytes(self) -> bytes:
        return _dump({"bundle": self.id, "items": [item.to_json() for item in self.items]})

    @classmethod
    def from_bytes(cls, body: bytes) -> Bundle:
        """Raises InvalidOptions for a body that is not a bundle."""
        try:
            data = json.loads(body)
            items = tuple(Item.from_json(item) for item in data["items"])
            bundle = str(data["bundle"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidOptions(f"The body is not a bundle: {type(error).__name__} ({error}).") from error
        if len(items) > BUNDLE_MAX:
            raise InvalidOptions(f"A bundle must have at most {BUNDLE_MAX} items; got {len(items)}.")
        return cls(bundle, items)


def bundle_of(bundle_id: str, jobs: Iterable[Job], results: str, editor: EditorName = "local") -> Bundle:
    """The bundle of `jobs`, whose results are written to the bucket `results`. editor: the stage's editor."""

    def item(job: Job) -> Item:
        place = Destination(results, job.result_key)
        return Item(job.id, job.source, place, job.options, job.stage, job.candidates, editor, job.trace_id)

    return Bundle(bundle_id, tuple(map(item, jobs)))


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """The outcome of one item: a result, the next stage of an edit, or an error.

    engine: that processed the image, which the container may have chosen; "" where it did not name one.
    cost_usd: price of paid services that the container called, in US dollars.
    """

    id: str
    engine: str = ""
    result: Result | None = None
    subject: Subject | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    error: ErrorInfo | None = None
    results: tuple[ResultItem, ...] = ()
    next_stage: Stage | None = None
    cost_usd: Annotated[float, Decimals(6)] = 0.0


@dataclass(frozen=True, slots=True)
class BundleResponse(Record):
    """The response to a bundle.

    wall_ms: milliseconds from the request to the last outcome.
    usd_per_hour: price of the instance; None where nothing is billed.
    """

    bundle: str
    device: str
    wall_ms: Annotated[float, Decimals(1)]
    usd_per_hour: float | None
    outcomes: tuple[Outcome, ...]

    @property
    def usd_per_item(self) -> float | None:
        """Share of one image in the cost of the instance; None where nothing is billed."""
        if self.usd_per_hour is None or not self.outcomes:
            return None
        return self.usd_per_hour * self.wall_ms / 3_600_000 / len(self.outcomes)

    def to_bytes(self) -> bytes:
        return _dump(self.to_json())

    @classmethod
    def from_bytes(cls, body: bytes) -> BundleResponse:
        return cls.from_json(json.loads(body))


def sources_of(event: dict[str, Any]) -> Iterator[Source]:
    """The created objects of an S3 notification. Keys are URL-decoded here, once.

    An `s3:TestEvent`, which S3 sends when a notification is configured, contains none.
    """
    for record in event.get("Records", ()):
        if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
            continue
        created = record["s3"]["object"]
        yield Source(
            bucket=record["s3"]["bucket"]["name"],
            key=unquote_plus(created["key"]),
            version_id=created.get("versionId") or created.get("eTag") or "",
            bytes=created.get("size"),
            sequencer=created.get("sequencer") or "",
        )


@dataclass(frozen=True, slots=True)
class Notification:
    """SageMaker's notification of an asynchronous invocation, delivered by SNS.

    output: S3 URI of the container's response; "" where the invocation failed.
    input: S3 URI of the bundle.
    """

    bundle: str
    completed: bool
    input: str
    output: str
    reason: str

    @classmethod
    def from_body(cls, body: str) -> Notification:
        data = json.loads(body)
        return cls(
            bundle=data["inferenceId"],
            completed=data["invocationStatus"] == "Completed",
            input=data["requestParameters"]["inputLocation"],
            output=(data.get("responseParameters") or {}).get("outputLocation") or "",
            reason=data.get("failureReason") or "",
        )

    def to_body(self) -> str:
        """The fields of SageMaker's notification that `from_body` reads."""
        data: dict[str, Any] = {
            "invocationStatus": "Completed" if self.completed else "Failed",
            "requestParameters": {"inputLocation": self.input},
            "inferenceId": self.bundle,
        }
        if self.completed:
            data["responseParameters"] = {"outputLocation": self.output}
        else:
            data["failureReason"] = self.reason
        return json.dumps(data)


@dataclass(frozen=True, slots=True)
class JobMessage(Record):
    """A message on the jobs queue: the job is to be submitted, after `attempts` earlier submissions.

    group: message group of the job's owner; "" for the drop folder.
    """

    job_id: str
    attempts: int
    trace_id: str = ""
    group: str = ""

    def to_body(self) -> str:
        return json.dumps(self.to_json())

    @classmethod
    def from_body(cls, body: str) -> JobMessage:
        return cls.from_json(json.loads(body))


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleMessage(Record):
    """A message on the bundles queue: the bundle is to be sent to the serverless endpoint.

    input: S3 URI of the bundle.
    expires_at: time after which the bundle is not sent; its jobs return to the jobs queue.
    refusals: how many times the endpoint has refused the bundle.
    """

    bundle: str
    input: str
    expires_at: datetime
    refusals: int = 0

    def to_body(self) -> str:
        return json.dumps(self.to_json())

    @classmethod
    def from_body(cls, body: str) -> BundleMessage:
        return cls.from_json(json.loads(body))


def split_s3_uri(uri: str) -> tuple[str, str]:
    """("bucket", "key") of "s3://bucket/key"."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
