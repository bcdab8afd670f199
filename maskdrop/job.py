"""A job: one image, one set of options, one result. Its identity, its states and its JSON form."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal

from maskdrop.errors import ErrorInfo
from maskdrop.options import Options
from maskdrop.presets import BUILT_IN, Presets

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
class Source:
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

    def to_json(self) -> dict[str, Any]:
        return {
            "bucket": self.bucket,
            "key": self.key,
            "version_id": self.version_id,
            "bytes": self.bytes,
            "sequencer": self.sequencer,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Source:
        size = data.get("bytes")
        return cls(
            bucket=data["bucket"],
            key=data["key"],
            version_id=data.get("version_id") or "",
            bytes=None if size is None else int(size),
            sequencer=data.get("sequencer") or "",
        )


@dataclass(frozen=True, slots=True)
class Result:
    """The image that a job made: where it is and what it is. width and height in pixels, bytes of the file."""

    bucket: str
    key: str
    width: int
    height: int
    bytes: int
    sha256: str
    format: str

    def to_json(self) -> dict[str, Any]:
        return {
            "bucket": self.bucket,
            "key": self.key,
            "width": self.width,
            "height": self.height,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "format": self.format,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        return cls(
            bucket=data["bucket"],
            key=data["key"],
            width=int(data["width"]),
            height=int(data["height"]),
            bytes=int(data["bytes"]),
            sha256=data["sha256"],
            format=data["format"],
        )


@dataclass(frozen=True, slots=True)
class Subject:
    """What was found.

    box: x0, y0, x1, y1 in pixels of the upright image, around alpha >= 128; None when nothing was found.
    coverage: mean alpha over the image, 0 to 1.
    score: mean certainty |2a - 1| over the subject's box, 0 to 1; 0 when nothing was found.
    """

    box: tuple[int, int, int, int] | None
    coverage: float
    score: float

    def to_json(self) -> dict[str, Any]:
        return {
            "box": list(self.box) if self.box else None,
            "coverage": round(self.coverage, 4),
            "score": round(self.score, 4),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Subject:
        x = data["box"]
        box = (int(x[0]), int(x[1]), int(x[2]), int(x[3])) if x else None
        return cls(box=box, coverage=float(data["coverage"]), score=float(data["score"]))


@dataclass(frozen=True, slots=True)
class Webhook:
    """Whom to tell of the end of a job.

    key: the API key that asked for it, by its name in the registry; its secret signs what is told.
    """

    url: str
    key: str

    def to_json(self) -> dict[str, str]:
        return {"url": self.url, "key": self.key}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Webhook:
        return cls(url=data["url"], key=data["key"])


@dataclass(frozen=True, slots=True)
class Job:
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
    preset: str
    options: Options
    source: Source
    created_at: datetime
    changed_at: datetime
    owner: str = ""
    attempts: int = 0
    bundle: str = ""
    result: Result | None = None
    subject: Subject | None = None
    error: ErrorInfo | None = None
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    cost_usd: float | None = None
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

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            "owner": self.owner,
            "preset": self.preset,
            **self.options.to_json(),
            "source": self.source.to_json(),
            "result": self.result.to_json() if self.result else None,
            "subject": self.subject.to_json() if self.subject else None,
            "error": self.error.to_json() if self.error else None,
            "warnings": list(self.warnings),
            "attempts": self.attempts,
            "bundle": self.bundle,
            "timings": self.timings,
            "cost_usd": self.cost_usd,
            "created_at": iso(self.created_at),
            "changed_at": iso(self.changed_at),
            "finished_at": iso(self.finished_at) if self.finished_at else None,
            "webhook": self.webhook.to_json() if self.webhook else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Job:
        """The job that `to_json` wrote: a record of ours, not a request, so a missing field is a KeyError."""
        cost = data.get("cost_usd")
        return cls(
            id=data["id"],
            state=data["state"],
            preset=data["preset"],
            options=Options.from_json({name: data[name] for name in ("task", "engine", "prompt", "output")}),
            source=Source.from_json(data["source"]),
            created_at=datetime.fromisoformat(data["created_at"]),
            changed_at=datetime.fromisoformat(data["changed_at"]),
            owner=data["owner"],
            attempts=int(data["attempts"]),
            bundle=data["bundle"],
            result=Result.from_json(data["result"]) if data["result"] else None,
            subject=Subject.from_json(data["subject"]) if data["subject"] else None,
            error=ErrorInfo.from_json(data["error"]) if data["error"] else None,
            warnings=tuple(data["warnings"]),
            timings={name: float(ms) for name, ms in data["timings"].items()},
            cost_usd=None if cost is None else float(cost),
            finished_at=datetime.fromisoformat(data["finished_at"]) if data["finished_at"] else None,
            webhook=Webhook.from_json(data["webhook"]) if data["webhook"] else None,
        )


def iso(moment: datetime) -> str:
    """UTC, ISO 8601 with microseconds and "Z": as text it sorts as the times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


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
