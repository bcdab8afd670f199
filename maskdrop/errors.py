"""The error tree. Every error has a code, an HTTP status and a retryable flag.

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
│   ├── UnknownLabel          unknown_label          422     no
│   ├── TextNotSupported      text_not_supported     422     no
│   ├── MaskEmpty             mask_empty             422     no
│   ├── MaskFull              mask_full              422     no
│   ├── EditFiltered          edit_filtered          422     no
│   ├── EditRefused           edit_refused           422     no
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
│   ├── UnreadableImage       unreadable_picture     422     no
│   ├── DecodingLimit         decoding_limit         422     no
│   ├── MalwareFound          malware_found          422     no
│   └── NotScanned            not_scanned            422     no
├── SourceError
│   ├── SourceMissing         source_missing         404     no
│   └── SourceReplaced        source_replaced        409     no
├── NotFound                  not_found              404     no
│   └── JobNotFound           job_not_found          404     no
├── MethodNotAllowed          method_not_allowed     405     no
├── Conflict
│   ├── JobInProgress         job_in_work            409     yes
│   ├── JobNotDone            job_not_done           409     no
│   ├── JobNotFailed          job_not_failed         409     no
│   └── RequestInProgress     request_in_work        409     yes
├── IdempotencyKeyReused      idempotency_key_reused 422     no
├── NotAllowed                not_allowed            403     no
├── AuthFailed                auth_failed            403     no
├── RateLimitExceeded         rate_limit_exceeded    429     yes
├── AttemptsExhausted         gave_up                500     no
├── SpendingCapReached        spending_cap_reached   402     no
├── ModelRetired              model_retired          424     no
├── ModelNotInRegion          model_not_in_region    424     no
├── Unavailable
│   ├── HostUnavailable       host_unavailable       424     yes
│   ├── QueueFull             queue_full             503     yes
│   ├── Overloaded            overloaded             503     yes
│   ├── DeadlineExceeded      deadline_exceeded      504     yes
│   ├── StorageUnavailable    storage_unavailable    503     yes
│   ├── TableUnavailable      table_unavailable      503     yes
│   ├── QueueUnavailable      queue_unavailable      503     yes
│   ├── EventsUnavailable     events_unavailable     503     yes
│   ├── EndpointUnavailable   endpoint_unavailable   503     yes
│   ├── EditorUnavailable     editor_unavailable     503     yes
│   │   ├── EditorThrottled   editor_throttled       503     yes
│   │   └── EditorTimedOut    editor_timed_out       504     yes
│   ├── DetectorUnavailable   detector_unavailable   503     yes
│   │   ├── DetectorThrottled detector_throttled     503     yes
│   │   └── DetectorTimedOut  detector_timed_out     504     yes
│   ├── EndpointFailed        endpoint_failed        503     yes
│   └── EndpointStarting      endpoint_starting      503     yes
└── Internal                  internal               500     yes
```

Statuses of requests: 400 (413, 415) for a request that the OpenAPI document does not allow. 422 for an allowed request
that this image or this combination of options cannot satisfy. 424 for a URL whose host did not deliver the file: the
failure of another host is not a 5xx of this service.

After a retryable error the job returns to its queue. After any other error it is `failed`, with the code and message.
A message is one sentence that a caller can act on without logs or source code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from maskdrop.record import Record

MESSAGE_CHARACTERS = 1000
"""Upper bound of a message, which quotes values of the caller. Without it, 4 MB of option names became a response of
11 MB; Lambda returns at most 6 MB. The longest message without such values has about 600 characters."""


@dataclass(frozen=True, slots=True)
class ErrorInfo(Record):
    """An error in JSON: a field of failed jobs and outcomes."""

    code: str
    message: str
    retryable: bool = False


class MaskdropError(Exception):
    """Base of all errors. code: its name in JSON; status: its HTTP status; retryable: whether a retry can succeed."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    @property
    def message(self) -> str:
        """The text of the error. A longer one than MESSAGE_CHARACTERS loses its middle."""
        text = str(self)
        half = (MESSAGE_CHARACTERS - 3) // 2
        return text if len(text) <= MESSAGE_CHARACTERS else f"{text[:half]} … {text[-half:]}"

    @property
    def info(self) -> ErrorInfo:
        return ErrorInfo(self.code, self.message, self.retryable)


class InputError(MaskdropError):
    """The request or the image is invalid: a retry would fail too."""

    status = 400


class InvalidOptions(InputError):
    """An option is malformed or out of range.

    field: name of the output field or vendor parameter, for the vendors' own error codes; "" for other options.
    """

    code = "invalid_options"

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class OptionsConflict(InvalidOptions):
    """The options are valid, but not in combination."""

    code, status = "options_conflict", 422


class UnknownPreset(InvalidOptions):
    code, status = "unknown_preset", 422


class UnknownCursor(InvalidOptions):
    """The cursor is not one that a previous page returned."""

    code, status = "unknown_cursor", 422


class RegionOutside(InvalidOptions):
    code, status = "roi_exceeds_bounds", 422


class RegionEmpty(InvalidOptions):
    code, status = "roi_region_empty", 422


class InvalidBackground(InvalidOptions):
    """The background image does not exist or cannot be decoded."""

    code, status = "invalid_background", 422


class InvalidPreset(InvalidOptions):
    """The stored options of a preset are invalid."""

    code, status = "invalid_preset", 422


class InvalidPrompt(InputError):
    code, status = "invalid_prompt", 422


class UnknownLabel(InputError):
    """No detector of this server knows the label."""

    code, status = "unknown_label", 422


class TextNotSupported(InputError):
    """The editor of this stage cannot generate an image from this text."""

    code, status = "text_not_supported", 422


class MaskEmpty(InputError):
    """No subject was found, so that an edit has no place for the generated part."""

    code, status = "mask_empty", 422


class MaskFull(InputError):
    """The subject covers the whole image, so that no background is left to generate."""

    code, status = "mask_full", 422


class EditFiltered(InputError):
    """The content filter of the editor's model refused the text, the image or the generated image."""

    code, status = "edit_filtered", 422


class EditRefused(InputError):
    """The editor's model does not accept this image or text."""

    code, status = "edit_refused", 422


class MissingSource(InputError):
    code = "missing_source"


class MultipleSources(InputError):
    code = "multiple_sources"


class UnknownForeground(InputError):
    """The image has no subject, and the dialect of the request reports that as an error."""

    code = "unknown_foreground"


class UnknownEngine(InputError):
    code = "unknown_engine"


class DirectoryMarker(InputError):
    code = "directory_marker"


class EmptyFile(InputError):
    code = "empty_file"


class InvalidUrl(InputError):
    """The text is not a URL with one host."""

    code = "invalid_url"


class BlockedUrl(InputError):
    """The URL is not allowed: its host is not public, its port is not 80 or 443, or it is plain http."""

    code, status = "blocked_url", 422


class TooManyRedirects(InputError):
    code, status = "too_many_redirects", 424


class FailedDownload(InputError):
    """The host responded, but not with the file."""

    code, status = "failed_download", 424


class FileTooLarge(InputError):
    code, status = "file_too_large", 413


class ResolutionTooHigh(InputError):
    code, status = "resolution_too_high", 413


class UnsupportedFormat(InputError):
    code, status = "unsupported_format", 415


class UnreadableImage(InputError):
    code, status = "unreadable_picture", 422


class DecodingLimit(InputError):
    """Decoding the file takes more time or memory than that of any ordinary image. A retry would take as much."""

    code, status = "decoding_limit", 422


class MalwareFound(InputError):
    """The malware scan of the stage found malware in the image or in its background image."""

    code, status = "malware_found", 422


class NotScanned(InputError):
    """The malware scan of the stage has no result for the image or its background image."""

    code, status = "not_scanned", 422


class SourceError(MaskdropError):
    """The source object is missing or was replaced after the job was created."""


class SourceMissing(SourceError):
    code, status = "source_missing", 404


class SourceReplaced(SourceError):
    code, status = "source_replaced", 409

    def __init__(self, message: str = "A newer version replaced the source before it was processed.") -> None:
        super().__init__(message)


class NotFound(MaskdropError):
    """The API has no such path or resource."""

    code, status = "not_found", 404


class JobNotFound(NotFound):
    code = "job_not_found"


class MethodNotAllowed(MaskdropError):
    """The URL does not support the method; the header `Allow` lists those it does."""

    code, status = "method_not_allowed", 405


class Conflict(MaskdropError):
    """The state of the resource does not allow the operation."""

    status = 409


class JobInProgress(Conflict):
    code, retryable = "job_in_work", True


class JobNotDone(Conflict):
    code = "job_not_done"


class JobNotFailed(Conflict):
    code = "job_not_failed"


class RequestInProgress(Conflict):
    """The first request with this idempotency key is still running."""

    code, retryable = "request_in_work", True


class IdempotencyKeyReused(MaskdropError):
    code, status = "idempotency_key_reused", 422


class NotAllowed(MaskdropError):
    code, status = "not_allowed", 403


class AuthFailed(MaskdropError):
    code, status = "auth_failed", 403


class RateLimitExceeded(MaskdropError):
    code, status, retryable = "rate_limit_exceeded", 429, True


class AttemptsExhausted(MaskdropError):
    """The job failed after the maximum number of attempts."""

    code, status = "gave_up", 500


class SpendingCapReached(MaskdropError):
    """The owner's spending cap of this month does not cover the price of the next image."""

    code, status = "spending_cap_reached", 402


class ModelRetired(MaskdropError):
    """The provider no longer offers the model to this account: its end of life, or legacy access, has passed."""

    code, status = "model_retired", 424


class ModelNotInRegion(MaskdropError):
    """The provider does not offer the model in this Region."""

    code, status = "model_not_in_region", 424


class Unavailable(MaskdropError):
    """A dependency is unavailable or overloaded; a retry can succeed."""

    status = 503
    retryable = True


class HostUnavailable(Unavailable):
    """The host of a URL does not respond in time, or responds with a server error."""

    code, status = "host_unavailable", 424


class QueueFull(Unavailable):
    code = "queue_full"


class Overloaded(Unavailable):
    """API Gateway could not run a function: too many run at a time, or the authorizer could not read the key."""

    code = "overloaded"


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


class EditorUnavailable(Unavailable):
    """The service that generates images is unavailable, or its response is incomplete.

    maybe_billed: whether the service may have generated and billed the image, whose response was lost.
    paused: whether the circuit breaker is open, so that the service was not called.
    """

    code = "editor_unavailable"

    def __init__(self, message: str, *, maybe_billed: bool = False, paused: bool = False) -> None:
        super().__init__(message)
        self.maybe_billed, self.paused = maybe_billed, paused


class EditorThrottled(EditorUnavailable):
    """The service that generates images throttles the requests: the quota of the model is used up."""

    code = "editor_throttled"


class EditorTimedOut(EditorUnavailable):
    """The service that generates images did not respond in time."""

    code, status = "editor_timed_out", 504


class DetectorUnavailable(Unavailable):
    """The service that detects labels is unavailable, or its response is incomplete."""

    code = "detector_unavailable"


class DetectorThrottled(DetectorUnavailable):
    """The service that detects labels throttles the requests."""

    code = "detector_throttled"


class DetectorTimedOut(DetectorUnavailable):
    """The service that detects labels did not respond in time."""

    code, status = "detector_timed_out", 504


class EndpointFailed(Unavailable):
    """The endpoint accepted a request, and its container failed or did not respond in time."""

    code = "endpoint_failed"


class EndpointStarting(Unavailable):
    """The endpoint had no instance ready within the caller's timeout."""

    code = "endpoint_starting"


class Internal(MaskdropError):
    """An unexpected error in this service. Retried up to the maximum number of attempts."""

    code, status, retryable = "internal", 500, True


def error_of(info: ErrorInfo) -> MaskdropError:
    """The exception for an ErrorInfo; Internal, with the same message, for an unknown code."""
    return error_kinds().get(info.code, Internal)(info.message)


def error_kinds() -> dict[str, type[MaskdropError]]:
    """The exceptions by code. Classes that only group others have no code of their own."""
    kinds = MaskdropError.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
    return {vars(kind)["code"]: kind for kind in reversed(kinds) if "code" in vars(kind)}
