"""What can go wrong, as one tree. Each error knows its consequence.

```
MaskdropError                 code                   status  retryable
├── InputError
│   ├── InvalidOptions        invalid_options        400     no
│   │   ├── OptionsConflict   options_conflict       422     no
│   │   ├── UnknownPreset     unknown_preset         422     no
│   │   ├── UnknownCursor     unknown_cursor         422     no
│   │   ├── RegionOutside     roi_exceeds_bounds     422     no
│   │   ├── RegionEmpty       roi_region_empty       422     no
│   │   ├── InvalidBackground invalid_background     422     no
│   │   └── InvalidPreset     invalid_preset         422     no
│   ├── InvalidPrompt         invalid_prompt         422     no
│   ├── MissingSource         missing_source         400     no
│   ├── MultipleSources       multiple_sources       400     no
│   ├── UnknownForeground     unknown_foreground     400     no
│   ├── UnknownEngine         unknown_engine         400     no
│   ├── DirectoryMarker       directory_marker       400     no
│   ├── EmptyFile             empty_file             400     no
│   ├── InvalidUrl            invalid_url            400     no
│   ├── BlockedUrl            blocked_url            422     no
│   ├── TooManyRedirects      too_many_redirects     424     no
│   ├── FailedDownload        failed_download        424     no
│   ├── FileTooLarge          file_too_large         413     no
│   ├── ResolutionTooHigh     resolution_too_high    413     no
│   ├── UnsupportedFormat     unsupported_format     415     no
│   └── UnreadablePicture     unreadable_picture     422     no
├── SourceError
│   ├── SourceMissing         source_missing         404     no
│   └── SourceReplaced        source_replaced        409     no
├── NotFound                  not_found              404     no
│   └── JobNotFound           job_not_found          404     no
├── MethodNotAllowed          method_not_allowed     405     no
├── Conflict
│   ├── JobInWork             job_in_work            409     yes
│   ├── JobNotFailed          job_not_failed         409     no
│   └── RequestInWork         request_in_work        409     yes
├── IdempotencyKeyReused      idempotency_key_reused 422     no
├── NotAllowed                not_allowed            403     no
├── AuthFailed                auth_failed            403     no
├── RateLimitExceeded         rate_limit_exceeded    429     yes
├── GaveUp                    gave_up                500     no
├── Unavailable
│   ├── HostUnavailable       host_unavailable       424     yes
│   ├── QueueFull             queue_full             503     yes
│   ├── DeadlineExceeded      deadline_exceeded      504     yes
│   ├── StorageUnavailable    storage_unavailable    503     yes
│   ├── TableUnavailable      table_unavailable      503     yes
│   ├── QueueUnavailable      queue_unavailable      503     yes
│   ├── EventsUnavailable     events_unavailable     503     yes
│   ├── EndpointUnavailable   endpoint_unavailable   503     yes
│   └── EndpointStarting      endpoint_starting      503     yes
└── Internal                  internal               500     yes
```

A request that is not as the API's description says is 400 (413, 415); one that is, and cannot be carried out with this
image or these options together, is 422; one whose address does not give its file is 424: that host's fault, which
is none of this service's and no 5xx of its operator's.

A retryable error sends an image back to its queue; any other ends its job as `failed`, with the code and the message.
A message is one sentence that its reader, who sees no log and no code, can act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from maskdrop.record import Record


@dataclass(frozen=True, slots=True)
class ErrorInfo(Record):
    """An error as data: what a failed job and an outcome carry."""

    code: str
    message: str
    retryable: bool = False


class MaskdropError(Exception):
    """The root: `code` names it, `status` is its HTTP status, `retryable` says whether trying again can help."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    @property
    def message(self) -> str:
        return str(self)

    @property
    def info(self) -> ErrorInfo:
        return ErrorInfo(self.code, self.message, self.retryable)


class InputError(MaskdropError):
    """The request or the image itself cannot be served, now or later."""

    status = 400


class InvalidOptions(InputError):
    """field: which one of the output's fields, or of a vendor's parameters, is at fault, "" for any other; the vendors
    have a code for each."""

    code = "invalid_options"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class OptionsConflict(InvalidOptions):
    """Each is an option, and they cannot be had together."""

    code, status = "options_conflict", 422


class UnknownPreset(InvalidOptions):
    code, status = "unknown_preset", 422


class UnknownCursor(InvalidOptions):
    """It is none that a page of a list gave."""

    code, status = "unknown_cursor", 422


class RegionOutside(InvalidOptions):
    code, status = "roi_exceeds_bounds", 422


class RegionEmpty(InvalidOptions):
    code, status = "roi_region_empty", 422


class InvalidBackground(InvalidOptions):
    """The image to be laid behind the subject is not there or no image."""

    code, status = "invalid_background", 422


class InvalidPreset(InvalidOptions):
    """What the registry holds under a preset's name are no options."""

    code, status = "invalid_preset", 422


class InvalidPrompt(InputError):
    code, status = "invalid_prompt", 422


class MissingSource(InputError):
    code = "missing_source"


class MultipleSources(InputError):
    code = "multiple_sources"


class UnknownForeground(InputError):
    """Nothing was found in the image, and who asks expects to be told so by an error."""

    code = "unknown_foreground"


class UnknownEngine(InputError):
    code = "unknown_engine"


class DirectoryMarker(InputError):
    code = "directory_marker"


class EmptyFile(InputError):
    code = "empty_file"


class InvalidUrl(InputError):
    """It is not written as the address of one host."""

    code = "invalid_url"


class BlockedUrl(InputError):
    """It leads where nobody may be sent: to a host that is not public, another port, plain http."""

    code, status = "blocked_url", 422


class TooManyRedirects(InputError):
    code, status = "too_many_redirects", 424


class FailedDownload(InputError):
    """The host answers, and not with the file."""

    code, status = "failed_download", 424


class FileTooLarge(InputError):
    code, status = "file_too_large", 413


class ResolutionTooHigh(InputError):
    code, status = "resolution_too_high", 413


class UnsupportedFormat(InputError):
    code, status = "unsupported_format", 415


class UnreadablePicture(InputError):
    code, status = "unreadable_picture", 422


class SourceError(MaskdropError):
    """The source is not, or no longer, what the job was made for."""


class SourceMissing(SourceError):
    code, status = "source_missing", 404


class SourceReplaced(SourceError):
    code, status = "source_replaced", 409


class NotFound(MaskdropError):
    """There is nothing at an address of ours."""

    code, status = "not_found", 404


class JobNotFound(NotFound):
    code = "job_not_found"


class MethodNotAllowed(MaskdropError):
    """There is something, for which one asks by another method."""

    code, status = "method_not_allowed", 405


class Conflict(MaskdropError):
    """It cannot be done as things stand."""

    status = 409


class JobInWork(Conflict):
    code, retryable = "job_in_work", True


class JobNotFailed(Conflict):
    code = "job_not_failed"


class RequestInWork(Conflict):
    """The first request with this idempotency key has no answer yet."""

    code, retryable = "request_in_work", True


class IdempotencyKeyReused(MaskdropError):
    code, status = "idempotency_key_reused", 422


class NotAllowed(MaskdropError):
    code, status = "not_allowed", 403


class AuthFailed(MaskdropError):
    code, status = "auth_failed", 403


class RateLimitExceeded(MaskdropError):
    code, status, retryable = "rate_limit_exceeded", 429, True


class GaveUp(MaskdropError):
    """Retryable errors used up every attempt."""

    code, status = "gave_up", 500


class Unavailable(MaskdropError):
    """A part is missing or busy at the moment."""

    status = 503
    retryable = True


class HostUnavailable(Unavailable):
    """The host of an address does not answer, not in time, or with a fault of its own."""

    code, status = "host_unavailable", 424


class QueueFull(Unavailable):
    code = "queue_full"


class DeadlineExceeded(Unavailable):
    code, status = "deadline_exceeded", 504


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class TableUnavailable(Unavailable):
    code = "table_unavailable"


class QueueUnavailable(Unavailable):
    code = "queue_unavailable"


class EventsUnavailable(Unavailable):
    code = "events_unavailable"


class EndpointUnavailable(Unavailable):
    code = "endpoint_unavailable"


class EndpointStarting(Unavailable):
    """The endpoint has no instance ready yet, and had none for as long as its caller could wait."""

    code = "endpoint_starting"


class Internal(MaskdropError):
    """A fault of ours. Worth another try: a fault that depends on the image runs out of attempts."""

    code, status, retryable = "internal", 500, True


def error_of(info: ErrorInfo) -> MaskdropError:
    """The error that was written down as `info`; Internal, with its message, for a code that the tree does not have."""
    kinds = MaskdropError.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
    # Those that only group others have no code of their own.
    return next((kind for kind in kinds if vars(kind).get("code") == info.code), Internal)(info.message)
