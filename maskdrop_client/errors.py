"""The errors of the client.

```
ClientError                 any error of the client
├── InvalidUsage            an argument or a setting is invalid; no request was sent
├── ConnectionFailed        no response from the API, after all attempts
├── InvalidResponse         the response does not match the OpenAPI document, such as the page of a proxy
├── JobTimedOut             a job did not finish in the time of `wait`
├── JobFailed               a job failed; has its code, message and job
└── ApiError                the API returned an error; has code, status, retryable
    ├── AuthenticationFailed    403 auth_failed, 401
    ├── InvalidRequest          400, 413, 415, 422, 424
    ├── NotFound                404
    ├── RateLimited             429
    └── ServiceUnavailable      500, 503, 504 …
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from maskdrop_client.models import Job


class ClientError(Exception):
    """Any error of the client. code: a stable name, that of the API where the API returned it. retryable: whether the
    same call can succeed later."""

    code = "client_error"
    retryable = False


class InvalidUsage(ClientError, ValueError):
    """An argument or a setting is invalid. No request was sent."""

    code = "invalid_usage"


class ConnectionFailed(ClientError):
    """The API or the storage did not respond, after all attempts."""

    code, retryable = "connection_failed", True


class InvalidResponse(ClientError):
    """The response does not match the OpenAPI document. A proxy, or a server that is not Maskdrop, may have sent it."""

    code = "invalid_response"


class JobTimedOut(ClientError):
    """The job did not finish in time. It continues on the server; `wait` can be called once more."""

    code, retryable = "job_timed_out", True

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job


class JobFailed(ClientError):
    """The job failed. job: with its error. code, retryable: of that error."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message)
        self.job = job
        if job.error:
            self.code, self.retryable = job.error.code, job.error.retryable


class ApiError(ClientError):
    """An error that the API returned.

    code: its name, such as `file_too_large`; "" for a response without one, such as that of a proxy. status: the HTTP
    status. message: one sentence. retry_after: seconds until a retry can succeed; None where the API does not state it.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retryable: bool = False, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{message} ({status}{f' {code}' if code else ''})")
        self.status, self.code, self.message = status, code, message
        self.retryable, self.retry_after = retryable, retry_after


class AuthenticationFailed(ApiError):
    """The API key is missing or not valid."""


class InvalidRequest(ApiError):
    """The request or the image is invalid: a retry would fail too, unless `retryable` is set."""


class NotFound(ApiError):
    """The job or the URL does not exist."""


class RateLimited(ApiError):
    """The key has used up its requests of this minute."""


class ServiceUnavailable(ApiError):
    """The service failed or is overloaded."""


def error_class(status: int, code: str) -> type[ApiError]:
    """Returns the class of an error of the API."""
    if status == 401 or code == "auth_failed":
        return AuthenticationFailed
    if status == 404:
        return NotFound
    if status == 429:
        return RateLimited
    if status in (400, 413, 415, 422, 424):
        return InvalidRequest
    return ServiceUnavailable if status >= 500 else ApiError
