"""In-memory fakes of the services. The tests in tests/e2e run the same checks on them and on the AWS adapters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any

from lambdas.adapters.queue import Message
from maskdrop.bot import Place
from maskdrop.catalog import SubjectKind
from maskdrop.edit import PREVIOUS_STAGE, Candidate, Change, Stage
from maskdrop.errors import (
    EndpointUnavailable,
    ErrorInfo,
    FailedDownload,
    MaskdropError,
    SourceMissing,
    StorageUnavailable,
    TextNotSupported,
    UnsupportedFormat,
)
from maskdrop.job import Job, Result, ResultItem, Review, Source, State, Subject
from maskdrop.output import CONTENT_TYPE
from maskdrop.presets import Presets
from maskdrop.record import iso
from maskdrop.services import Count, Download, EditedImage, EditRequest, Form, Kind, Page, Selection, Services, Stored
from maskdrop.settings import Settings
from maskdrop.sniff import image_type, unsupported_kind
from maskdrop.wire import (
    STARTED_PREFIX,
    Bundle,
    BundleResponse,
    Facts,
    ImageResponse,
    Invocation,
    Notification,
    Outcome,
    split_s3_uri,
)

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

FACTS = Facts(
    engine="selfie",
    device="cpu",
    width=640,
    height=480,
    full=(1280, 960),
    subject=Subject((1, 2, 30, 40), 0.25, 0.9),
    place=(0, 0, 29, 38),
    warnings=("a warning",),
    timings={"decode": 1.5},
)

SETTINGS = Settings(
    stage="test",
    inbox="inbox-bucket",
    results="results-bucket",
    table="jobs",
    registry="registry",
    jobs_queue_url="https://sqs/jobs",
    edits_queue_url="https://sqs/edits",
    webhooks_queue_url="https://sqs/webhooks",
    dead_letters_queue_url="https://sqs/dead-letters",
    endpoint="bulk",
    event_bus="bus",
    interactive="interactive",
    interactive_mode="serverless",
)


def minutes_later(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


@dataclass
class FakeJobs:
    records: dict[str, Job] = field(default_factory=dict)
    broken: MaskdropError | None = None

    def claim(self, job: Job) -> bool:
        self._raise_error()
        if job.id in self.records:
            return False
        self.records[job.id] = job
        return True

    def take(self, job_id: str, *, bundle: str, now: datetime, abandoned: datetime) -> Job | None:
        job = self._job_in_state(job_id, ("queued", "submitted"))
        if job and job.state == "queued" and job.stage == "edit":
            return None
        if job is None or (job.state == "submitted" and job.changed_at >= abandoned and job.bundle != bundle):
            return None
        attempts = job.attempts + (job.state == "queued")
        return self._save(replace(job, state="submitted", bundle=bundle, attempts=attempts, changed_at=now))

    def requeue(self, job_id: str, *, bundle: str, now: datetime, give_back: bool = False) -> Job | None:
        job = self._job_in_state(job_id, ("queued", "submitted"))
        if job is None or job.bundle != bundle:
            return None
        back = int(give_back and job.state == "submitted")
        return self._save(replace(job, state="queued", attempts=job.attempts - back, changed_at=now))

    def done(self, job_id: str, outcome: Outcome, *, bundle: str, cost_usd: float | None, now: datetime) -> Job | None:
        job = self._job_in_state(job_id, ("queued", "submitted", "done"))
        if job is None or (job.state == "done" and job.bundle != bundle):
            return None
        return self._save(
            replace(
                job,
                state="done",
                bundle=bundle,
                result=outcome.result,
                results=outcome.results,
                subject=outcome.subject,
                warnings=outcome.warnings,
                timings=outcome.timings,
                error=None,
                cost_usd=cost_usd,
                changed_at=now,
                finished_at=now,
            )
        )

    def fail(self, job_id: str, error: ErrorInfo, *, bundle: str, now: datetime) -> Job | None:
        job = self._job_in_state(job_id, ("queued", "submitted", "failed"))
        if job is None or job.bundle != bundle:
            return None
        return self._save(replace(job, state="failed", error=error, changed_at=now, finished_at=now))

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
        job = self._job_in_state(job_id, ("queued", "submitted"))
        if job is None or job.bundle != bundle or job.stage not in (stage, PREVIOUS_STAGE[stage]):
            return None
        if outcome:
            job = replace(job, subject=outcome.subject, warnings=outcome.warnings, timings=outcome.timings)
        if candidates is not None:
            job = replace(job, candidates=tuple(candidates))
        if cost_usd is not None:
            job = replace(job, cost_usd=cost_usd)
        return self._save(replace(job, state="queued", stage=stage, attempts=0, changed_at=now))

    def retry(self, job: Job, *, now: datetime) -> Job | None:
        known = self._job_in_state(job.id, ("failed",))
        if known is None:
            return None
        known = replace(known, preset=job.preset, options=job.options, stage=job.stage, candidates=job.candidates)
        reset = replace(known, state="queued", bundle="", attempts=0, error=None, warnings=(), timings={})
        return self._save(replace(reset, changed_at=now, finished_at=None))

    def review(self, job_id: str, review: Review) -> Job | None:
        job = self._job_in_state(job_id, ("done",))
        return self._save(replace(job, review=review)) if job else None

    def delete(self, job_id: str, *, state: State) -> bool:
        self._raise_error()
        if job_id in self.records and self.records[job_id].state != state:
            return False
        self.records.pop(job_id, None)
        return True

    def get(self, job_id: str) -> Job | None:
        self._raise_error()
        return self.records.get(job_id)

    def page(self, selection: Selection, *, before: str, limit: int) -> Page:
        self._raise_error()
        jobs = [
            job
            for job in sorted(self.records.values(), key=lambda job: job.recency, reverse=True)
            if selection.owner in (None, job.owner)
            and selection.state in (None, job.state)
            and job.source.key.startswith(selection.prefix)
            and (not selection.since or job.changed_at >= selection.since)
            and (not selection.until or job.changed_at < selection.until)
            and (not before or job.recency < before)
        ]
        return Page(jobs[:limit], jobs[limit - 1].recency if len(jobs) > limit else "")

    def overdue(self, state: State, *, since: datetime, limit: int) -> list[Job]:
        self._raise_error()
        jobs = [job for job in self.records.values() if job.state == state and job.recency < iso(since)]
        return sorted(jobs, key=lambda job: job.recency)[:limit]

    def _job_in_state(self, job_id: str, states: tuple[State, ...]) -> Job | None:
        self._raise_error()
        job = self.records.get(job_id)
        return job if job and job.state in states else None

    def _save(self, job: Job) -> Job:
        self.records[job.id] = job
        return job

    def _raise_error(self) -> None:
        if self.broken:
            raise self.broken


@dataclass
class FakeQueue:
    sent: list[tuple[str, int]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    hidden: list[tuple[str, int]] = field(default_factory=list)
    broken: MaskdropError | None = None

    def send(self, bodies: Sequence[str], *, delay_s: int = 0, group: str = "") -> None:
        if self.broken:
            raise self.broken
        self.groups.extend(group for _ in bodies)
        self.sent.extend((body, delay_s) for body in bodies)

    def hide(self, receipt: str, *, seconds: int) -> None:
        self.hidden.append((receipt, seconds))


@dataclass
class FakeDeadLetters:
    """A dead-letter queue, which hides a message forever once it is received. deleted: bodies of deleted messages."""

    bodies: list[str]
    deleted: list[str] = field(default_factory=list)

    def receive(self) -> list[Message]:
        received, self.bodies = self.bodies[:10], self.bodies[10:]
        return [Message(body, receipt=body) for body in received]

    def delete(self, receipt: str) -> None:
        self.deleted.append(receipt)


@dataclass
class FakeStorage:
    """objects: (bucket, key) -> body. jobs: (bucket, key) -> id of the job whose result the object is.

    tagged: (bucket, key) -> version and tags; objects without a row do not exist for `tags`.
    untagged: (bucket, key) of objects whose tags cannot be read.
    """

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    jobs: dict[tuple[str, str], str] = field(default_factory=dict)
    tagged: dict[tuple[str, str], tuple[str, dict[str, str]]] = field(default_factory=dict)
    untagged: set[tuple[str, str]] = field(default_factory=set)

    def head(self, bucket: str, key: str) -> Stored | None:
        body = self.objects.get((bucket, key))
        if body is None:
            return None
        return Stored(hashlib.md5(body).hexdigest(), len(body), self.jobs.get((bucket, key), ""))  # noqa: S324  as S3's ETag

    def delete(self, bucket: str, key: str) -> None:
        self.objects.pop((bucket, key), None)

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Form:
        return Form(f"https://{bucket}", {"key": key, "Content-Type": content_type, "max": f"{bytes_max}"})

    def read(self, bucket: str, key: str) -> bytes:
        try:
            return self.objects[bucket, key]
        except KeyError:
            raise SourceMissing(f"The object s3://{bucket}/{key} does not exist.") from None

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        self.objects[bucket, key] = body

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        self.objects[to_bucket, to_key] = self.read(bucket, key)

    def tags(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        if (bucket, key) in self.untagged:
            raise StorageUnavailable("Reading the tags of an object failed: SlowDown.")
        try:
            return self.tagged[bucket, key]
        except KeyError:
            raise SourceMissing(f"The object s3://{bucket}/{key} does not exist.") from None

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        return f"https://{bucket}/{key}?valid={seconds}"


@dataclass
class FakeEndpoint:
    submitted: list[tuple[str, str]] = field(default_factory=list)
    unavailable: bool = False

    def submit(self, bundle_id: str, input_uri: str) -> None:
        if self.unavailable:
            raise EndpointUnavailable("Submitting to the endpoint failed: ThrottlingException.")
        self.submitted.append((bundle_id, input_uri))


@dataclass
class FakeServerless:
    """Returns `response` for every bundle. Raises `broken` if it is set."""

    invoked: list[bytes] = field(default_factory=list)
    response: bytes = b""
    broken: MaskdropError | None = None

    def invoke(self, bundle: bytes) -> bytes:
        self.invoked.append(bundle)
        if self.broken:
            raise self.broken
        return self.response


@dataclass
class FakeInteractive:
    """Returns `result`, or its location if it is larger than `overflow.bytes_max`. Raises `broken` if it is set.

    detections: rows of the results of the task `detect`, with boxes in pixels of 640 x 480. labels: that the detector
    knows. instances: labels of the results of a request for each instance. boxes: requests to `segment_box`.
    kind: of the subject.
    """

    requests: list[tuple[bytes, Invocation]] = field(default_factory=list)
    result: bytes = b"a cut-out"
    broken: MaskdropError | None = None
    detections: list[dict[str, Any]] = field(default_factory=list)
    labels: list[str] | None = field(default_factory=lambda: ["car", "airplane"])
    instances: tuple[str, ...] = ("face", "face")
    boxes: list[bytes] = field(default_factory=list)
    kind: SubjectKind = "person"

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        self.requests.append((image, invocation))
        if self.broken:
            raise self.broken
        options, overflow = invocation.options, invocation.overflow
        subject = Subject((1, 2, 30, 40), 0.25, 0.9, self.kind)
        facts = Facts(
            engine=options.engine,
            device="cpu",
            width=640,
            height=480,
            full=(1280, 960),
            subject=subject,
            place=subject.box,
            timings={"decode": 1},
            warnings=("a warning",),
        )
        if options.task == "detect":
            report = {"width": 640, "height": 480, "engine": options.engine, "labels": self.labels}
            body = json.dumps({**report, "detections": self.detections}).encode()
            return ImageResponse(facts, "application/json", body)
        if options.instances == "each" and overflow:
            stem, extension = overflow.key.rsplit(".", 1)
            keys = [overflow.key, *(f"{stem}-{number}.{extension}" for number in range(1, len(self.instances) + 1))]
            union, *own = (
                Result(overflow.bucket, key, 640, 480, len(self.result), "ab" * 32, options.output.format)
                for key in keys
            )
            results = (ResultItem(one, label, 0.9, subject.box) for one, label in zip(own, self.instances, strict=True))
            return ImageResponse(facts, "application/json", union, tuple(results))
        if overflow is None or len(self.result) <= overflow.bytes_max:
            return ImageResponse(facts, CONTENT_TYPE[options.output.format], self.result)
        place = Result(overflow.bucket, overflow.key, 640, 480, len(self.result), "ab" * 32, options.output.format)
        return ImageResponse(facts, "application/json", place)

    def segment_box(self, request: bytes) -> bytes:
        self.boxes.append(request)
        if self.broken:
            raise self.broken
        return b'{"mask_image": "AAAA"}'


@dataclass
class FakeEditor:
    """Returns the prompt and seed as the generated image. Raises the errors in `errors` first, one for each call."""

    requests: list[EditRequest] = field(default_factory=list)
    errors: list[MaskdropError] = field(default_factory=list)
    usd_per_image: float = 0.07

    def check(self, prompt: str, change: Change = "background") -> None:
        if "impossible" in prompt:
            raise TextNotSupported("This editor cannot generate impossible images.")

    def edit(self, request: EditRequest) -> EditedImage:
        self.check(request.prompt)
        self.requests.append(request)
        if self.errors:
            raise self.errors.pop(0)
        return EditedImage(f"{request.prompt} {request.seed}".encode(), "image/png", "fake", self.usd_per_image)


@dataclass
class FakeEvents:
    published: list[Job] = field(default_factory=list)
    broken: MaskdropError | None = None

    def publish(self, jobs: Sequence[Job]) -> None:
        if self.broken and jobs:
            raise self.broken
        self.published.extend(jobs)


@dataclass
class FakeRegistry:
    """now: current time; tests set it instead of waiting."""

    items: dict[tuple[Kind, str], tuple[dict[str, Any], datetime | None]] = field(default_factory=dict)
    now: datetime = NOW
    broken: MaskdropError | None = None

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        if self.broken:
            raise self.broken
        value, expires_at = self.items.get((kind, name), ({}, self.now))
        return None if expires_at and expires_at <= self.now else value

    def put(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> None:
        self.items[kind, name] = dict(value), _whole_second(expires_at)

    def put_new(self, kind: Kind, name: str, value: Mapping[str, Any], *, expires_at: datetime | None = None) -> bool:
        if self.get(kind, name) is not None:
            return False
        self.put(kind, name, value, expires_at=expires_at)
        return True

    def delete(self, kind: Kind, name: str) -> None:
        self.items.pop((kind, name), None)

    def list(self, kind: Kind) -> dict[str, dict[str, Any]]:
        if self.broken:
            raise self.broken
        found = ((name, self.get(kind, name)) for of, name in sorted(self.items) if of == kind)
        return {name: value for name, value in found if value is not None}

    def add(self, kind: Kind, name: str, amounts: Mapping[str, int], *, expires_at: datetime | None = None) -> Count:
        self.put_new(kind, name, {}, expires_at=expires_at)
        counters, end = self.items[kind, name]
        for counter, amount in amounts.items():
            counters[counter] = counters.get(counter, 0) + amount
        return Count(dict(counters), end)


@dataclass
class FakeWeb:
    """images: URL -> image. posted: (URL, headers, body). status: status of every post, or the error to raise."""

    images: dict[str, Download] = field(default_factory=dict)
    posted: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    status: int | MaskdropError = 200

    def fetch(self, url: str) -> Download:
        try:
            return self.images[url]
        except KeyError:
            raise FailedDownload("The host does not exist.") from None

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.posted.append((url, dict(headers), body))
        if isinstance(self.status, MaskdropError):
            raise self.status
        return self.status


@dataclass
class FakeMessenger:
    """files: contents of the files that users sent. sent: method, place, and the text or (name, data, type, caption).

    errors: raised by the next calls, one each.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    sent: list[tuple[str, Place, Any]] = field(default_factory=list)
    errors: list[MaskdropError] = field(default_factory=list)
    downloads: list[str] = field(default_factory=list)

    def send_text(self, place: Place, text: str) -> None:
        self._send("text", place, text)

    def send_document(self, place: Place, data: bytes, name: str, content_type: str, caption: str) -> None:
        self._send("document", place, (name, data, content_type, caption))

    def send_sticker(self, place: Place, data: bytes) -> None:
        self._send("sticker", place, data)

    def download(self, file_id: str) -> Download:
        self._raise_next()
        self.downloads.append(file_id)
        body = self.files[file_id]
        content_type = image_type(body)
        if content_type is None:
            raise UnsupportedFormat(f"The file at the URL is {unsupported_kind(body) or 'not an image'}.")
        return Download(body, content_type)

    def _send(self, method: str, place: Place, content: Any) -> None:
        self._raise_next()
        self.sent.append((method, place, content))

    def _raise_next(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


def _whole_second(moment: datetime | None) -> datetime | None:
    return moment and datetime.fromtimestamp(ceil(moment.timestamp()), UTC)


@dataclass
class World:
    """All services in memory, with helpers for tests."""

    jobs: FakeJobs = field(default_factory=FakeJobs)
    queue: FakeQueue = field(default_factory=FakeQueue)
    storage: FakeStorage = field(default_factory=FakeStorage)
    endpoint: FakeEndpoint = field(default_factory=FakeEndpoint)
    events: FakeEvents = field(default_factory=FakeEvents)
    registry: FakeRegistry = field(default_factory=FakeRegistry)
    interactive: FakeInteractive = field(default_factory=FakeInteractive)
    web: FakeWeb = field(default_factory=FakeWeb)
    webhooks_queue: FakeQueue = field(default_factory=FakeQueue)
    bundles_queue: FakeQueue = field(default_factory=FakeQueue)
    results_queue: FakeQueue = field(default_factory=FakeQueue)
    edits_queue: FakeQueue = field(default_factory=FakeQueue)
    editor: FakeEditor = field(default_factory=FakeEditor)
    serverless: FakeServerless = field(default_factory=FakeServerless)
    settings: Settings = SETTINGS

    @property
    def services(self) -> Services:
        return Services(
            jobs=self.jobs,
            jobs_queue=self.queue,
            storage=self.storage,
            endpoint=self.endpoint,
            events=self.events,
            registry=self.registry,
            interactive=self.interactive,
            web=self.web,
            webhooks_queue=self.webhooks_queue,
            bundles_queue=self.bundles_queue,
            results_queue=self.results_queue,
            edits_queue=self.edits_queue,
            editor=self.editor,
            serverless=self.serverless,
            presets=Presets(lambda: self.registry.list("preset")),
        )

    def bundles(self) -> list[Bundle]:
        """Returns the submitted bundles in order."""
        return [Bundle.from_bytes(self.storage.read(*split_s3_uri(uri))) for _, uri in self.endpoint.submitted]

    def completed(self, bundle: Bundle, outcomes: Sequence[Outcome], usd_per_hour: float | None = None) -> Notification:
        """Returns the notification of a bundle that the container completed with `outcomes`."""
        key = f"bundles/out/{bundle.id}.out"
        response = BundleResponse(bundle.id, "cpu", 1000.0, usd_per_hour, tuple(outcomes))
        self.storage.objects["results-bucket", key] = response.to_bytes()
        return Notification(bundle.id, True, self._input(bundle), f"s3://results-bucket/{key}", "")

    def failed(self, bundle: Bundle, reason: str = "connection reset", *, started: bool = True) -> Notification:
        """Returns the notification of a bundle without a response. started: whether the container received it."""
        if started:
            self.storage.objects["results-bucket", f"{STARTED_PREFIX}{bundle.id}"] = b""
        return Notification(bundle.id, False, self._input(bundle), "", reason)

    def _input(self, bundle: Bundle) -> str:
        return next(uri for submitted, uri in self.endpoint.submitted if submitted == bundle.id)


def a_source(key: str = "inbox/default/photo.jpg", version: str = "v1", size: int = 1000) -> Source:
    return Source("inbox-bucket", key, version, size, "0A")


def a_success(job_id: str) -> Outcome:
    result = Result("results-bucket", f"results/{job_id}.png", 640, 480, 9000, "ab" * 32, "png")
    return Outcome(job_id, "selfie", result, Subject((1, 2, 30, 40), 0.25, 0.9), ("a warning",), {"decode": 1.5})


def a_failure(job_id: str, *, retryable: bool) -> Outcome:
    code = "storage_unavailable" if retryable else "unreadable_picture"
    return Outcome(job_id, "selfie", error=ErrorInfo(code, "It went wrong.", retryable))
