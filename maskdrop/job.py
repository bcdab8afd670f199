"""A job: one image, one set of options, one result. Its identity, its states and its JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Any, Literal

from maskdrop.catalog import SubjectKind
from maskdrop.edit import Candidate, Stage
from maskdrop.errors import ErrorInfo
from maskdrop.options import JSON_FIELDS, Options
from maskdrop.presets import BUILT_IN, Presets
from maskdrop.record import Decimals, Inline, Record, iso

State = Literal["queued", "submitted", "done", "failed"]
STATES: tuple[State, ...] = ("queued", "submitted", "done", "failed")

Verdict = Literal["accepted", "corrected"]
"""Outcome of a review: the result is right, or a person corrected it."""

INBOX_PREFIX = "inbox/"
UPLOADS_PREFIX = "uploads/"
RESULTS_PREFIX = "results/"
"""Key prefixes of dropped photos, whose creation S3 reports, of uploads through the API, and of results. The first two
are in the inbox bucket."""

BACKGROUNDS_PREFIX = "backgrounds/"
"""Background images in the inbox bucket. They do not expire, and S3 reports no events for them."""

SENT_BACKGROUNDS_PREFIX = f"{UPLOADS_PREFIX}backgrounds/"
"""Background images that callers upload with a request. Like other uploads they expire after a week."""

JOBS_PREFIX = f"{RESULTS_PREFIX}jobs/"
"""Results of jobs with an owner, in one folder per owner."""


@dataclass(frozen=True, slots=True)
class Source(Record):
    """The S3 object of an image.

    version_id: the S3 version, or the ETag in a bucket without versions.
    bytes: size of the object; None where the event did not contain it.
    sequencer: S3's order of writes to one key, in hexadecimal digits; "" where the event did not contain it.
    """

    bucket: str
    key: str
    version_id: str = ""
    bytes: int | None = None
    sequencer: str = ""


@dataclass(frozen=True, slots=True)
class Result(Record):
    """The result of a job in S3. width and height in pixels; bytes: size of the file."""

    bucket: str
    key: str
    width: int
    height: int
    bytes: int
    sha256: str
    format: str


@dataclass(frozen=True, slots=True)
class Subject(Record):
    """The subject that the engine found.

    box: x0, y0, x1, y1 in pixels of the upright image, around alpha >= 128; None without a subject.
    coverage: mean alpha of the image, 0 to 1.
    score: of the engine `auto`, the calibrated probability that the IoU is at least 0.9; of the others, mean certainty
        |2a - 1| inside the box. 0 to 1; 0 without a subject.
    kind: what the subject is.
    engine: that segmented it, which `auto` and `prompted` choose; "" in records of older versions.
    needs_review: whether a person should look at the result: `score` is below the `review_below` of the options.
    """

    box: tuple[int, int, int, int] | None
    coverage: Annotated[float, Decimals(4)]
    score: Annotated[float, Decimals(4)]
    kind: SubjectKind = "unknown"
    engine: str = ""
    needs_review: bool = False


@dataclass(frozen=True, slots=True)
class ResultItem(Record):
    """One of several results of a job: an instance, or a candidate of an edit.

    label: of the prompt that found the instance; "" without a label.
    score: confidence of the detector, else mean certainty of the matte inside the box, 0 to 1.
    box: of the instance, x0, y0, x1, y1 in pixels of the upright image; None for a candidate, or without a subject.
    prompt, seed: of a candidate; "" and None for an instance.
    """

    result: Result
    label: str = ""
    score: Annotated[float, Decimals(4)] = 0.0
    box: tuple[int, int, int, int] | None = None
    prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Review(Record):
    """A person's review of a result.

    reviewer: id of the API key that sent it; the owner for a caller by IAM.
    training: whether the correction is kept as a training record (`maskdrop.review`).
    """

    verdict: Verdict
    reviewer: str
    reviewed_at: datetime
    training: bool = False


@dataclass(frozen=True, slots=True)
class Webhook(Record):
    """The URL that receives the event of a finished job.

    key: name, in the registry, of the API key that created the job; its secret signs the event.
    """

    url: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """One image, one set of options, one result.

    owner: who may see the job: the owner of the API key that created it; "" for a photo dropped into the inbox.
    bundle: id of the bundle that it was last submitted in, or that finished it.
    results: one for each instance or candidate; () where `result` is the only one.
    stage: stage of an edit; a failed job is retried from it.
    candidates: generated images of an edit, which cost money and are not generated again.
    review: of the result by a person; None before.
    attempts: number of submissions in this stage. One that no container received does not count.
    warnings: remarks of the engine on the result, such as `guessed_subject`.
    timings: milliseconds by stage.
    changed_at: time of the last change of `state`.
    trace_id: of the request or photo that created the job (`maskdrop.trace`); "" in records of older versions.
    """

    id: str
    state: State
    owner: str = ""
    preset: str
    options: Annotated[Options, Inline(JSON_FIELDS)]
    source: Source
    result: Result | None = None
    subject: Subject | None = None
    error: ErrorInfo | None = None
    warnings: tuple[str, ...] = ()
    attempts: int = 0
    bundle: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    cost_usd: float | None = None
    created_at: datetime
    changed_at: datetime
    finished_at: datetime | None = None
    webhook: Webhook | None = None
    results: tuple[ResultItem, ...] = ()
    stage: Stage = "segment"
    candidates: tuple[Candidate, ...] = ()
    trace_id: str = ""
    review: Review | None = None

    def public(self) -> dict[str, Any]:
        """The JSON that callers and the receivers of events get: without the name of the key that signs its webhook."""
        webhook = {"url": self.webhook.url} if self.webhook else None
        return {**self.to_json(), "webhook": webhook}

    @property
    def result_key(self) -> str:
        """Key of the result: derived from the source for a dropped photo, from owner and id for an owner's job."""
        if self.owner:
            return f"{JOBS_PREFIX}{folder_of(self.owner)}/{self.id}.{self.options.extension}"
        return result_key(self.source.key, self.options)

    @property
    def recency(self) -> str:
        """Unique sort key of the jobs of one state: time of the last change, then id."""
        return f"{iso(self.changed_at)}#{self.id}"


def job_id(source: Source, options: Options, owner: str = "") -> str:
    """32 hexadecimal digits made from bucket, key, version, options and owner. Two requests for the same image are
    one job, unless their owners differ."""
    parts = [source.bucket, source.key, source.version_id, options.to_json(), *([owner] if owner else [])]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder_of(owner: str) -> str:
    """32 hexadecimal digits: an owner's name may be long (an ARN), and keys of objects must not disclose it."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def group_of(owner: str) -> str:
    """Message group of an owner's messages, among which SQS shares its deliveries; "" for the drop folder."""
    return folder_of(owner) if owner else ""


def uploads_of(owner: str) -> str:
    """Key prefix of an owner's uploads, in the inbox bucket."""
    return f"{UPLOADS_PREFIX}{folder_of(owner)}/"


def dropped(source: Source, now: datetime, presets: Presets = BUILT_IN) -> Job:
    """The job of a photo dropped into the inbox.

    Its preset is named by the first folder of its key; an unknown folder means the default preset. The id is made from
    the built-in preset of that name, so that a redelivered event creates no second job after the preset has changed.
    Raises InvalidPreset and TableUnavailable.
    """
    first, slash, _ = source.key.removeprefix(INBOX_PREFIX).partition("/")
    folder = first if slash else ""
    preset, options = presets.of(folder)
    identity = job_id(source, BUILT_IN.of(folder)[1])
    return replace(queued(source, preset, options, now), id=identity, trace_id=identity)


def queued(source: Source, preset: str, options: Options, now: datetime, *, owner: str = "", trace_id: str = "") -> Job:
    """A new job. trace_id: "": the job's ID."""
    identity = job_id(source, options, owner)
    return Job(
        id=identity,
        state="queued",
        preset=preset,
        options=options,
        source=source,
        created_at=now,
        changed_at=now,
        owner=owner,
        trace_id=trace_id or identity,
    )


def result_key(source_key: str, options: Options) -> str:
    """Key of the result of a dropped photo. It keeps the source's extension, so that the results of a.jpg and a.png
    differ. S3 keys have at most 1,024 bytes: a longer key is truncated and ends with a digest."""
    name = RESULTS_PREFIX + source_key.removeprefix(INBOX_PREFIX)
    ending = f".{options.extension}"
    if len(name.encode()) + len(ending) <= 1024:
        return name + ending
    digest = hashlib.sha256(source_key.encode()).hexdigest()[:16]
    head = name.encode()[: 1024 - len(digest) - len(ending) - 1].decode(errors="ignore")
    return f"{head}~{digest}{ending}"


def item_key(key: str, number: int) -> str:
    """Key of one of several results, numbered from 1, in a folder named like the result: a.jpg/2.png for a.jpg.png."""
    folder, _, extension = key.rpartition(".")
    return f"{folder}/{number}.{extension}"


def is_newer(sequencer: str, than: str) -> bool:
    """Whether one write to a key came after another, by S3's sequencers. They are hexadecimal numbers, compared after
    padding the shorter one with zeros on the right (S3 user guide, "Event message structure"). False where either is
    unknown."""
    if not sequencer or not than:
        return False
    length = max(len(sequencer), len(than))
    return sequencer.upper().ljust(length, "0") > than.upper().ljust(length, "0")
