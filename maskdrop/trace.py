"""The trace ID of an image: one ID in the record, the messages, the bundle, the logs and the webhook of its job.

It is that of the caller's header `traceparent` (W3C Trace Context, https://www.w3.org/TR/trace-context/), else the ID
of the API request; for a dropped photo, the ID of its job, which every function derives from the photo.
"""

from __future__ import annotations

import re

HEADER = "traceparent"

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def trace_id_of(traceparent: str, request_id: str = "") -> str:
    """The trace ID of a request, 32 hexadecimal digits. request_id: a UUID. "" where neither is valid: W3C Trace
    Context requires that an invalid header is ignored."""
    if match := _TRACEPARENT.fullmatch(traceparent):
        return match[1]
    return request_id.replace("-", "") if _UUID.fullmatch(request_id) else ""


def traceparent(trace_id: str, parent_id: str) -> str:
    """The header of a request that belongs to a trace, marked as sampled. parent_id: 16 hexadecimal digits."""
    return f"00-{trace_id}-{parent_id}-01"
