"""The JSON objects of the API as typed, frozen dataclasses. A contract test compares each with the OpenAPI document.

`read` builds one from JSON. It ignores unknown fields, so that a newer API works with an older client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from maskdrop_client.errors import InvalidResponse

T = TypeVar("T")

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the upright image."""


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """The error of a failed job or of an invalid preset."""

    code: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject that the engine found. box: None without a subject. coverage: mean opacity, 0 to 1. score: 0 to 1.
    kind: person, thing, none or unknown. needs_review: whether a person should look at the result."""

    box: Box | None
    coverage: float
    score: float
    kind: str = "unknown"
    engine: str = ""
    needs_review: bool = False


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A result in S3 (`Result` in the API). width, height in pixels. url: presigned, without a key; "" where the API
    did not return it, as in a list of jobs."""

    bucket: str
    key: str
    width: int
    height: int
    bytes: int
    sha256: str
    format: str
    url: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class ResultItem:
    """One of several results: an instance with label, score and box, or a candidate of an edit with prompt and seed."""

    result: StoredFile
    label: str = ""
    score: float = 0.0
    box: Box | None = None
    prompt: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The S3 object of a job's image. bytes: None if unknown."""

    bucket: str
    key: str
    version_id: str = ""
    bytes: int | None = None
    sequencer: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A generated image of an edit. number: from 1. model: that generated it. cost_usd: price in US dollars."""

    number: int
    prompt: str
    seed: int
    model: str
    cost_usd: float


@dataclass(frozen=True, slots=True)
class Review:
    """A person's review of a result. verdict: accepted or corrected. reviewer: id of the API key that sent it, or the
    caller by IAM. training: whether the correction is kept as a training record."""

    verdict: str
    reviewer: str
    reviewed_at: datetime
    training: bool = False


@dataclass(frozen=True, slots=True)
class SourceUrl:
    """The presigned URL of a job's source."""

    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Webhook:
    """The URL that receives the event of a finished job."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job. state: queued, submitted, done or failed. prompt, output, edit: as in the request. timings: milliseconds
    by step. cost_usd: None if nothing is billed."""

    id: str
    state: str
    owner: str = ""
    preset: str
    task: str
    engine: str
    prompt: Any = None
    output: dict[str, Any] = field(default_factory=dict)
    instances: str = "union"
    edit: Any = None
    refine: str = "guided"
    review_below: float | None = None
    strokes: tuple[Any, ...] = ()
    source: Source
    result: StoredFile | None = None
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
    stage: str = "segment"
    candidates: tuple[Candidate, ...] = ()
    trace_id: str = ""
    review: Review | None = None

    @property
    def finished(self) -> bool:
        """Whether the job is done or failed."""
        return self.state in ("done", "failed")


@dataclass(frozen=True, slots=True)
class JobPage:
    """One page of jobs, most recently changed first. cursor: of the next page; None on the last."""

    jobs: tuple[Job, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Detection:
    """One detected instance. score: confidence, 0 to 1. box: in pixels of the upright image."""

    label: str
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Detections:
    """The instances in an image of width x height pixels. labels: that the detector knows; None for any label.
    warnings, timings: of the headers of the response; timings in milliseconds by step."""

    width: int
    height: int
    engine: str
    labels: tuple[str, ...] | None
    detections: tuple[Detection, ...]
    warnings: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """An engine of the catalogue. default_for: tasks of requests that name neither an engine nor a prompt.
    interactive: whether the API returns its results synchronously. available: whether the engine is installed; None if
    that is not known. paid: whether each image costs money at another service."""

    name: str
    task: str
    tasks: tuple[str, ...]
    default: bool
    default_for: tuple[str, ...]
    subject: str
    kind: str
    returns: str
    prompts: tuple[str, ...]
    everything: bool
    paid: bool
    non_commercial: bool
    interactive: bool
    available: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """A preset and its options. error: of a preset that is not valid, which has no options."""

    name: str
    task: str = ""
    engine: str = ""
    prompt: Any = None
    output: dict[str, Any] = field(default_factory=dict)
    instances: str = "union"
    edit: Any = None
    refine: str = "guided"
    review_below: float | None = None
    strokes: tuple[Any, ...] = ()
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of an owner in a month (UTC): images (`pictures`), requests that the rate limit rejected (`refused`),
    images generated from text (`generated`) and their price in US dollars."""

    owner: str
    month: str
    pictures: int
    refused: int
    generated: int
    generated_usd: float


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the service."""

    status: str
    stage: str
    version: str
    time: str


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A presigned form: post `fields`, then the file as the field `file`, to `url` before `expires_at`."""

    upload: str
    url: str
    fields: dict[str, str] = field(repr=False)
    bytes_max: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Results:
    """The files of a synchronous response with presigned URLs instead of a file."""

    result: StoredFile
    results: tuple[ResultItem, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineList:
    engines: tuple[Engine, ...]


@dataclass(frozen=True, slots=True)
class PresetList:
    presets: tuple[Preset, ...]


def read(kind: type[T], data: Any) -> T:
    """Builds a dataclass from JSON; a missing or null field takes its default. Raises InvalidResponse."""
    try:
        built: T = _read(kind, data)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidResponse(
            f"The response is not a {kind.__name__} of this API: {type(error).__name__} ({error!s:.200}). Check the "
            "URL of the API, and that the client is not older than the server."
        ) from error
    return built


def _read(kind: type, data: Any) -> Any:
    if not isinstance(data, Mapping):
        raise TypeError(f"{data!r:.80} is not an object")
    values = {}
    for name, required, reader in _readers(kind):
        if required or data.get(name) is not None:
            values[name] = reader(data[name])
    return kind(**values)


@cache
def _readers(kind: type) -> tuple[tuple[str, bool, Callable[[Any], Any]], ...]:
    hints = get_type_hints(kind)
    return tuple(
        (item.name, item.default is MISSING and item.default_factory is MISSING, _reader(hints[item.name]))
        for item in fields(kind)
    )


def _reader(hint: Any) -> Callable[[Any], Any]:
    """Returns the function that reads a JSON value as `hint`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        read_value = _reader(next(one for one in inner if one is not NoneType))
        return lambda value: None if value is None else read_value(value)
    if origin is tuple and inner[-1] is Ellipsis:
        read_item = _reader(inner[0])
        return lambda value: tuple(read_item(one) for one in value)
    if origin is tuple:
        read_items = [_reader(one) for one in inner]
        return lambda value: tuple(read_item(one) for read_item, one in zip(read_items, value, strict=True))
    if origin is dict:
        read_field = _reader(inner[1])
        return lambda value: {str(name): read_field(one) for name, one in value.items()}
    if hint is Any:
        return lambda value: value
    if hint is datetime:
        return datetime.fromisoformat
    if hint in (int, float, bool, str):
        return lambda value: _scalar(hint, value)
    return lambda value: _read(hint, value)


def _scalar(kind: type, value: Any) -> Any:
    accepted: tuple[type, ...] = (int, float) if kind is float else (kind,)
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{value!r:.80} is not of the type {kind.__name__}")
    return kind(value)
