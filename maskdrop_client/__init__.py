"""Python client of the HTTP API of Maskdrop, synchronous and asynchronous. It needs httpx2 alone.

from maskdrop_client import Maskdrop

with Maskdrop("https://….execute-api.eu-central-1.amazonaws.com/v1", key="…") as maskdrop:
    maskdrop.cutout("photo.jpg", format="webp").save("photo.webp")
"""

from maskdrop_client.client import AsyncMaskdrop, Maskdrop
from maskdrop_client.errors import (
    ApiError,
    AuthenticationFailed,
    ClientError,
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    InvalidUsage,
    JobFailed,
    JobTimedOut,
    NotFound,
    RateLimited,
    ServiceUnavailable,
)
from maskdrop_client.models import (
    Detection,
    Detections,
    Engine,
    Health,
    Job,
    JobPage,
    Preset,
    ResultItem,
    StoredFile,
    Subject,
    UploadForm,
    Usage,
)
from maskdrop_client.result import Outcome, Result

__all__ = [
    "ApiError",
    "AsyncMaskdrop",
    "AuthenticationFailed",
    "ClientError",
    "ConnectionFailed",
    "Detection",
    "Detections",
    "Engine",
    "Health",
    "InvalidRequest",
    "InvalidResponse",
    "InvalidUsage",
    "Job",
    "JobFailed",
    "JobPage",
    "JobTimedOut",
    "Maskdrop",
    "NotFound",
    "Outcome",
    "Preset",
    "RateLimited",
    "Result",
    "ResultItem",
    "ServiceUnavailable",
    "StoredFile",
    "Subject",
    "UploadForm",
    "Usage",
]
