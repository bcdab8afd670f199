"""The forms in which the parts speak to one another: bundles to the container, outcomes back, messages on the queues.

A bundle (JSON, at most BUNDLE_MAX items):

    {"bundle": "…", "items": [{"id", "source", "result": {"bucket", "key"}, "task", "engine", "prompt", "output"}]}

Its answer, one outcome an item:

    {"bundle": "…", "device": "cpu", "wall_ms": 812.0, "usd_per_hour": null, "outcomes": [
        {"id", "engine", "result": {…}, "subject": {…}, "warnings": […], "timings": {…}, "error": null} |
        {"id", "engine", "error": {"code", "message", "retryable"}, "timings": {…}}]}

One image: the image as the body; in the header CUSTOM_ATTRIBUTES its options as JSON, at most 1,024 characters, and
beside them where a result goes that is larger than its caller can be handed:

    {"task", "engine", "prompt", "output", "overflow": {"bucket", "key", "bytes_max"}}

Its answer: the image, or {"result": {…}} when it went there; in the same header what was found (`Facts`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import unquote_plus

from maskdrop.errors import ErrorInfo, InvalidOptions
from maskdrop.job import Job, Result, Source, Subject
from maskdrop.options import JSON_FIELDS, Options
from maskdrop.record import Decimals, Inline, Record

BUNDLE_MAX = 64
"""Items in one bundle: about 18 kB of JSON, and 12 s of work at 5 images a second."""

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CUSTOM_ATTRIBUTES_MAX = 1024
"""Characters that SageMaker lets through in that header."""

RESULT_OF = "maskdrop-job"
"""In the metadata of a result in S3: the id of the job that it is of."""


@dataclass(frozen=True, slots=True)
class Overflow(Record):
    """Where a result of more than `bytes_max` bytes goes."""

    bucket: str
    key: str
    bytes_max: int

    @classmethod
    def from_json(cls, data: Any) -> Overflow:
        """Raises InvalidOptions."""
        match data:
            case {"bucket": str(bucket), "key": str(key), "bytes_max": int(bytes_max)} if len(data) == 3:
                return cls(bucket, key, bytes_max)
        raise InvalidOptions('"overflow" is an object of bucket, key and bytes_max.')


@dataclass(frozen=True, slots=True)
class Invocation:
    """What is asked for one image."""

    options: Options
    overflow: Overflow | None = None

    def to_header(self) -> str:
        """ASCII; it may be longer than CUSTOM_ATTRIBUTES_MAX, as prompts are."""
        more = {"overflow": self.overflow.to_json()} if self.overflow else {}
        return json.dumps({**self.options.to_json(), **more}, separators=(",", ":"))

    @classmethod
    def from_header(cls, text: str) -> Invocation:
        """Raises InvalidOptions and what `Options.from_json` raises."""
        if len(text) > CUSTOM_ATTRIBUTES_MAX:
            raise InvalidOptions(f"The header {CUSTOM_ATTRIBUTES} has at most {CUSTOM_ATTRIBUTES_MAX} characters.")
        try:
            data = json.loads(text) if text.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidOptions(f"The header {CUSTOM_ATTRIBUTES} is not JSON.") from error
        overflow = data.pop("overflow", None) if isinstance(data, dict) else None
        return cls(Options.from_json(data), None if overflow is None else Overflow.from_json(overflow))


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts(Record):
    """What was found in one image, and how. width and height of the result in pixels, full: both in the size
    "original"; place the subject's box in the result (None: nothing was found), timings in milliseconds."""

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
        """ASCII; the last warnings are left out where it would be longer than CUSTOM_ATTRIBUTES_MAX."""
        data = self.to_json()
        while len(text := json.dumps(data, separators=(",", ":"))) > CUSTOM_ATTRIBUTES_MAX and data["warnings"]:
            data["warnings"].pop()
        return text

    @classmethod
    def from_header(cls, text: str) -> Facts:
        return cls.from_json(json.loads(text))


@dataclass(frozen=True, slots=True)
class Reply:
    """The container's answer for one image. file: its bytes, or where they lie. content_type: of the file."""

    facts: Facts
    content_type: str
    file: bytes | Result


@dataclass(frozen=True, slots=True)
class Destination(Record):
    """The object in S3 that a result is written to."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True)
class Item(Record):
    """One image of a bundle: what to read, what to do, where to write."""

    id: str
    source: Source
    result: Destination
    options: Annotated[Options, Inline(JSON_FIELDS)]


@dataclass(frozen=True, slots=True)
class Bundle:
    id: str
    items: tuple[Item, ...]

    def to_bytes(self) -> bytes:
        return _dump({"bundle": self.id, "items": [item.to_json() for item in self.items]})

    @classmethod
    def from_bytes(cls, body: bytes) -> Bundle:
        """Raises InvalidOptions when the body is no bundle."""
        try:
            data = json.loads(body)
            items = tuple(Item.from_json(item) for item in data["items"])
            bundle = str(data["bundle"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidOptions(f"The body is not a bundle: {type(error).__name__} ({error}).") from error
        if len(items) > BUNDLE_MAX:
            raise InvalidOptions(f"A bundle has at most {BUNDLE_MAX} items, not {len(items)}.")
        return cls(bundle, items)


def bundle_of(bundle_id: str, jobs: Iterable[Job], results: str) -> Bundle:
    """The bundle that carries `jobs`, their results going to the bucket `results`."""
    return Bundle(
        bundle_id, tuple(Item(job.id, job.source, Destination(results, job.result_key), job.options) for job in jobs)
    )


@dataclass(frozen=True, slots=True)
class Outcome(Record):
    """What became of one item: a result, or an error."""

    id: str
    engine: str
    result: Result | None = None
    subject: Subject | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Answer(Record):
    """What the container says to a bundle.

    wall_ms: from the arrival of the bundle to its last outcome.
    usd_per_hour: the price of the instance; None where nothing is billed.
    """

    bundle: str
    device: str
    wall_ms: Annotated[float, Decimals(1)]
    usd_per_hour: float | None
    outcomes: tuple[Outcome, ...]

    @property
    def usd_per_item(self) -> float | None:
        """The share of one image in the time of the instance."""
        if self.usd_per_hour is None or not self.outcomes:
            return None
        return self.usd_per_hour * self.wall_ms / 3_600_000 / len(self.outcomes)

    def to_bytes(self) -> bytes:
        return _dump(self.to_json())

    @classmethod
    def from_bytes(cls, body: bytes) -> Answer:
        return cls.from_json(json.loads(body))


def sources_of(event: dict[str, Any]) -> Iterator[Source]:
    """The objects that an S3 notification says were created. Keys come URL-encoded and are un-quoted here, once.
    `s3:TestEvent`, which S3 sends when a notification is set up, holds none."""
    for record in event.get("Records", ()):
        if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
            continue
        thing = record["s3"]["object"]
        yield Source(
            bucket=record["s3"]["bucket"]["name"],
            key=unquote_plus(thing["key"]),
            version_id=thing.get("versionId") or thing.get("eTag") or "",
            bytes=thing.get("size"),
            sequencer=thing.get("sequencer") or "",
        )


@dataclass(frozen=True, slots=True)
class Notification:
    """SageMaker's word on an asynchronous invocation, as it arrives through SNS.

    output: the s3:// address of the container's answer; "" when the invocation failed.
    input: the s3:// address of the bundle.
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


@dataclass(frozen=True, slots=True)
class JobMessage(Record):
    """A message on the jobs queue: this job waits to be submitted, after so many attempts."""

    job_id: str
    attempts: int

    def to_body(self) -> str:
        return json.dumps(self.to_json())

    @classmethod
    def from_body(cls, body: str) -> JobMessage:
        return cls.from_json(json.loads(body))


def split_s3_uri(uri: str) -> tuple[str, str]:
    """("bucket", "key") of "s3://bucket/key"."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
