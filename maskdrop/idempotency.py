"""Idempotent requests: repeated requests with one Idempotency-Key are processed once and get the same response
(draft-ietf-httpapi-idempotency-key-header-07). Keys are scoped to the owner."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from maskdrop.errors import IdempotencyKeyReused, InvalidOptions, MaskdropError, RequestInProgress
from maskdrop.job import folder_of
from maskdrop.services import Registry

IDEMPOTENCY_HEADER = "Idempotency-Key"

STORED_FOR = timedelta(hours=24)
"""Time for which a response is stored and repeated."""

UNFINISHED_FOR = timedelta(seconds=60)
"""Time after which a request that never finished may be repeated: twice the maximum duration of a call."""

KEY = re.compile(r"[!-~]{1,255}")
"""Printable ASCII without spaces, such as a UUID."""


def once(
    registry: Registry,
    owner: str,
    key: str,
    request: Mapping[str, Any],
    now: datetime,
    process: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Returns the response of `process`, a JSON object, or the stored response of an earlier call with this key.

    An error is not stored, so that the request can be repeated. Raises InvalidOptions for a malformed key,
    IdempotencyKeyReused where the key belongs to another request, RequestInProgress while that request is running, and
    the errors of `process`.
    """
    if not KEY.fullmatch(key):
        raise InvalidOptions("Idempotency-Key must be 1 to 255 printable ASCII characters without spaces.")
    name = f"{folder_of(owner)}#{key}"
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    if not registry.put_new("idempotency", name, {"request": digest, "answer": None}, expires_at=now + UNFINISHED_FOR):
        known = registry.get("idempotency", name) or {"request": digest, "answer": None}
        if known["request"] != digest:
            raise IdempotencyKeyReused("This Idempotency-Key belongs to another request; use a new key.")
        if known["answer"] is None:
            raise RequestInProgress("The first request with this Idempotency-Key is still running; retry later.")
        stored: dict[str, Any] = known["answer"]
        return stored
    try:
        response = process()
    except MaskdropError:
        registry.delete("idempotency", name)
        raise
    registry.put("idempotency", name, {"request": digest, "answer": response}, expires_at=now + STORED_FOR)
    return response
