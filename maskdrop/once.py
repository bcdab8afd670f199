"""A request that comes twice under one Idempotency-Key is carried out once, and answered twice alike
(draft-ietf-httpapi-idempotency-key-header-07). Keys are each owner's own."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from maskdrop.errors import IdempotencyKeyReused, InvalidOptions, MaskdropError, RequestInWork
from maskdrop.job import folder_of
from maskdrop.services import Registry

IDEMPOTENCY_HEADER = "Idempotency-Key"

KEPT = timedelta(hours=24)
"""How long an answer is given again."""

IN_WORK = timedelta(seconds=60)
"""Twice as long as a call can take: a request that came to no end, not even a bad one, may be made again after it."""

KEY = re.compile(r"[!-~]{1,255}")
"""Printable ASCII without blanks: a UUID, most often."""


def once(
    registry: Registry,
    owner: str,
    key: str,
    request: Mapping[str, Any],
    now: datetime,
    work: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """The answer of `work`, a JSON object, or that of an earlier call with this key. An error is not kept: the same
    request may then do better. Raises InvalidOptions for a key that is none, IdempotencyKeyReused when the key was
    another request's, RequestInWork while that has no answer, and what `work` raises."""
    if not KEY.fullmatch(key):
        raise InvalidOptions("An Idempotency-Key is 1 to 255 printable characters of ASCII, without blanks.")
    name = f"{folder_of(owner)}#{key}"
    digest = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    if not registry.put_new("idempotency", name, {"request": digest, "answer": None}, expires_at=now + IN_WORK):
        known = registry.get("idempotency", name) or {"request": digest, "answer": None}
        if known["request"] != digest:
            raise IdempotencyKeyReused("This Idempotency-Key came with another request before.")
        if known["answer"] is None:
            raise RequestInWork("The first request with this Idempotency-Key is still in work.")
        answer: dict[str, Any] = known["answer"]
        return answer
    try:
        answer = work()
    except MaskdropError:
        registry.delete("idempotency", name)
        raise
    registry.put("idempotency", name, {"request": digest, "answer": answer}, expires_at=now + KEPT)
    return answer
