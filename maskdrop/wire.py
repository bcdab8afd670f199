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
from typing import Any
from urllib.parse import unquote_plus

from maskdrop.errors import ErrorInfo, InvalidOptions
from maskdrop.job import Job, Result, Source, Subject
from maskdrop.options import Options

BUNDLE_MAX = 64
"""Items in one bundle: about 18 kB of JSON, and 12 s of work at 5 images a second."""

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
CUSTOM_ATTRIBUTES_MAX = 1024
"""Characters that SageMaker lets through in that header."""

RESULT_OF = "maskdrop-job"
"""In the metadata of a result in S3: the id of the job that it is of."""


@dataclass(frozen=True, slots=True)
class Overflow:
    """Where a result of more than `bytes_max` bytes goes."""

    bucket: str
    key: str
    bytes_max: int

    def to_json(self) -> dict[str, Any]:
        return {"bucket": self.bucket, "key": self.key, "bytes_max": self.bytes_max}

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


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found in one image, and how. width and height of the result in pixels, full: both in the size
    "original"; place the subject's box in the result (None: nothing was found), timings in milliseconds."""

    engine: str
    device: str
    width: int
    height: int
    full: tuple[int, int]
    subject: Subject
    place: tuple[int, int, int, int] | None
    warnings: tuple[str, ...]
    timings: dict[str, float]

    def to_header(self) -> str:
        """ASCII; the last warnings are left out when it would be longer than CUSTOM_ATTRIBUTES_MAX."""
        data = {
            "engine": self.engine,
            "device": self.device,
            "width": self.width,
            "height": self.height,
            "full": self.full,
            "subject": self.subject.to_json(),
            "place": self.place,
            "timings": self.timings,
        }
        warnings = list(self.warnings)
        while True:
            text = json.dumps({**data, "warnings": warnings}, separators=(",", ":"))
            if len(text) <= CUSTOM_ATTRIBUTES_MAX or not warnings:
                return text
            warnings.pop()

    @classmethod
    def from_header(cls, text: str) -> Facts:
        data = json.loads(text)
        place = data["place"]
        return cls(
            engine=data["engine"],
            device=data["device"],
            width=int(data["width"]),
            height=int(data["height"]),
            full=(data["full"][0], data["full"][1]),
            subject=Subject.from_json(data["subject"]),
            place=(place[0], place[1], place[2], place[3]) if place else None,
            warnings=tuple(data["warnings"]),
            timings=dict(data["timings"]),
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """The container's answer for one image. file: its bytes, or where they lie. content_type: of the file."""

    facts: Facts
    content_type: str
    file: bytes | Result


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a bundle: what to read, what to do, where to write."""

    id: str
    source: Source
    result_bucket: str
    result_key: str
    options: Options

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "source": self.source.to_json(),
            "result": {"bucket": self.result_bucket, "key": self.result_key},
            **self.options.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Item:
        return cls(
            id=data["id"],
            source=Source.from_json(data["source"]),
            result_bucket=data["result"]["bucket"],
            result_key=data["result"]["key"],
            options=Options.from_json({name: data.get(name) for name in ("task", "engine", "prompt", "output")}),
        )


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
    return Bundle(bundle_id, tuple(Item(job.id, job.source, results, job.result_key, job.options) for job in jobs))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item: a result, or an error."""

    id: str
    engine: str
    result: Result | None = None
    subject: Subject | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    error: ErrorInfo | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "engine": self.engine,
            "result": self.result.to_json() if self.result else None,
            "subject": self.subject.to_json() if self.subject else None,
            "warnings": list(self.warnings),
            "timings": self.timings,
            "error": self.error.to_json() if self.error else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        result, subject, error = data.get("result"), data.get("subject"), data.get("error")
        return cls(
            id=data["id"],
            engine=data.get("engine") or "",
            result=Result.from_json(result) if result else None,
            subject=Subject.from_json(subject) if subject else None,
            warnings=tuple(data.get("warnings") or ()),
            timings=dict(data.get("timings") or {}),
            error=ErrorInfo.from_json(error) if error else None,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What the container says to a bundle.

    wall_ms: from the arrival of the bundle to its last outcome.
    usd_per_hour: the price of the instance; None where nothing is billed.
    """

    bundle: str
    device: str
    wall_ms: float
    usd_per_hour: float | None
    outcomes: tuple[Outcome, ...]

    @property
    def usd_per_item(self) -> float | None:
        """The share of one image in the time of the instance."""
        if self.usd_per_hour is None or not self.outcomes:
            return None
        return self.usd_per_hour * self.wall_ms / 3_600_000 / len(self.outcomes)

    def to_bytes(self) -> bytes:
        return _dump(
            {
                "bundle": self.bundle,
                "device": self.device,
                "wall_ms": round(self.wall_ms, 1),
                "usd_per_hour": self.usd_per_hour,
                "outcomes": [outcome.to_json() for outcome in self.outcomes],
            }
        )

    @classmethod
    def from_bytes(cls, body: bytes) -> Answer:
        data = json.loads(body)
        price = data["usd_per_hour"]
        return cls(
            bundle=data["bundle"],
            device=data["device"],
            wall_ms=float(data["wall_ms"]),
            usd_per_hour=None if price is None else float(price),
            outcomes=tuple(Outcome.from_json(outcome) for outcome in data["outcomes"]),
        )


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
class JobMessage:
    """A message on the jobs queue: this job waits to be submitted, after so many attempts."""

    job_id: str
    attempts: int

    def to_body(self) -> str:
        return json.dumps({"job_id": self.job_id, "attempts": self.attempts})

    @classmethod
    def from_body(cls, body: str) -> JobMessage:
        data = json.loads(body)
        return cls(job_id=data["job_id"], attempts=int(data["attempts"]))


def split_s3_uri(uri: str) -> tuple[str, str]:
    """("bucket", "key") of "s3://bucket/key"."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _dump(data: dict[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
