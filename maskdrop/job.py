"""A job: one image, one set of options, one result. Its identity, its states and its JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Literal

from maskdrop.errors import ErrorInfo
from maskdrop.options import JSON_FIELDS, Options
from maskdrop.presets import BUILT_IN, Presets
from maskdrop.record import Decimals, Inline, Record, iso

State = Literal["queued", "submitted", "done", "failed"]
STATES: tuple[State, ...] = ("queued", "submitted", "done", "failed")

INBOX_PREFIX = "inbox/"
UPLOADS_PREFIX = "uploads/"
RESULTS_PREFIX = "results/"
"""Photos that are dropped and announced, photos that came through the API and are not, and what is made of both. The
first two are in one bucket."""

BACKGROUNDS_PREFIX = "backgrounds/"
"""In the inbox bucket: images for behind a subject. They are kept, and no event tells of them."""

SENT_BACKGROUNDS_PREFIX = f"{UPLOADS_PREFIX}backgrounds/"
"""Those that callers send along with an image; with the other uploads they are deleted after a week."""

JOBS_PREFIX = f"{RESULTS_PREFIX}jobs/"
"""Where the results of jobs lie that have an owner, in a folder of each owner's."""


@dataclass(frozen=True, slots=True)
class Source(Record):
    """Where an image is.

    version_id: the S3 version, or the ETag in a bucket without versions.
    bytes: the size that the event told, if any.
    sequencer: S3's order of the writes to one key, as hexadecimal digits; "" where the event told none.
    """

    bucket: str
    key: str
    version_id: str = ""
    bytes: int | None = None
    sequencer: str = ""


@dataclass(frozen=True, slots=True)
class Result(Record):
    """The image that a job made: where it is and what it is. width and height in pixels, bytes of the file."""

    bucket: str
    key: str
    width: int
    height: int
    bytes: int
    sha256: str
    format: str


@dataclass(frozen=True, slots=True)
class Subject(Record):
    """What was found.

    box: x0, y0, x1, y1 in pixels of the upright image, around alpha >= 128; None when nothing was found.
    coverage: mean alpha over the image, 0 to 1.
    score: mean certainty |2a - 1| over the subject's box, 0 to 1; 0 when nothing was found.
    """

    box: tuple[int, int, int, int] | None
    coverage: Annotated[float, Decimals(4)]
    score: Annotated[float, Decimals(4)]


@dataclass(frozen=True, slots=True)
class Webhook(Record):
    """Whom to tell of the end of a job.

    key: the API key that asked for it, by its name in the registry; its secret signs what is told.
    """

    url: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """One image on its way.

    owner: who may see it, as the key says that asked for it; "" for a photo dropped into the inbox.
    bundle: the bundle that carries it while it is submitted.
    attempts: how often it was submitted.
    warnings: what the engine wants known about a result (say, that it had to guess where the subject is).
    timings: milliseconds by stage.
    changed_at: when `state` last changed.
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

    @property
    def result_key(self) -> str:
        """By its source for a photo that was dropped; an owner's job has a place that no other job shares."""
        if self.owner:
            return f"{JOBS_PREFIX}{folder_of(self.owner)}/{self.id}.{self.options.output.format}"
        return result_key(self.source.key, self.options)

    @property
    def recency(self) -> str:
        """Sorts the jobs of one state by the time of their last change; unique."""
        return f"{iso(self.changed_at)}#{self.id}"


def job_id(source: Source, options: Options, owner: str = "") -> str:
    """32 hexadecimal digits made from bucket, key, version, options and owner: the same image asked for twice is one
    job, but nobody's request ends in a job of somebody else's."""
    parts = [source.bucket, source.key, source.version_id, options.to_json(), *([owner] if owner else [])]
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def folder_of(owner: str) -> str:
    """32 hexadecimal digits: an owner's name may be long, an ARN, and is nobody else's business."""
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def uploads_of(owner: str) -> str:
    """The prefix of all that an owner sent through the API, in the inbox bucket."""
    return f"{UPLOADS_PREFIX}{folder_of(owner)}/"


def dropped(source: Source, now: datetime, presets: Presets = BUILT_IN) -> Job:
    """The job of a photo that was dropped into the inbox: its preset is the first folder of its key, if one bears
    that name, else the default one. Its id is made from the built-in one, whatever the stage's own says: a preset that
    is changed meanwhile makes no second job of an event that comes again. Raises InvalidPreset and TableUnavailable."""
    first, slash, _ = source.key.removeprefix(INBOX_PREFIX).partition("/")
    folder = first if slash else ""
    preset, options = presets.of(folder)
    return replace(queued(source, preset, options, now), id=job_id(source, BUILT_IN.of(folder)[1]))


def queued(source: Source, preset: str, options: Options, now: datetime, *, owner: str = "") -> Job:
    """A new job."""
    return Job(
        id=job_id(source, options, owner),
        state="queued",
        preset=preset,
        options=options,
        source=source,
        created_at=now,
        changed_at=now,
        owner=owner,
    )


def result_key(source_key: str, options: Options) -> str:
    """Where the result of a source goes. The source's own extension stays in the name, so that a.jpg and a.png of one
    folder never overwrite each other's result. S3 allows 1,024 bytes: a longer name is cut and gets a digest."""
    name = RESULTS_PREFIX + source_key.removeprefix(INBOX_PREFIX)
    ending = f".{options.output.format}"
    if len(name.encode()) + len(ending) <= 1024:
        return name + ending
    digest = hashlib.sha256(source_key.encode()).hexdigest()[:16]
    head = name.encode()[: 1024 - len(digest) - len(ending) - 1].decode(errors="ignore")
    return f"{head}~{digest}{ending}"


def is_newer(sequencer: str, than: str) -> bool:
    """Whether one write to a key came after another, by S3's sequencers: hexadecimal numbers, the shorter one padded
    on the right with zeros, as the S3 user guide says ("Event message structure"). False where either is unknown."""
    if not sequencer or not than:
        return False
    length = max(len(sequencer), len(than))
    return sequencer.upper().ljust(length, "0") > than.upper().ljust(length, "0")
