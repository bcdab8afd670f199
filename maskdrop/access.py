"""Who may come in: API keys, what a caller may see and how often it may call, and what it used."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Any, Literal

from maskdrop.errors import RateLimitExceeded
from maskdrop.job import Job
from maskdrop.record import Record
from maskdrop.services import Registry

Scope = Literal["own", "all"]
"""Whose jobs a caller sees: its owner's, or everybody's, those of the drop folder too."""

OPEN_PATHS = ("/v1/health", "/v1/openapi.json", "/v1/docs")
"""What anybody may read."""

IAM_PREFIX = "/iam"
"""Below it, the same paths for callers who sign with their AWS credentials instead of a key."""

CALLS_A_MINUTE = 600
"""For a key that was made without a rate, and for callers by IAM."""

WINDOW = timedelta(seconds=60)
"""Calls are counted in windows of this length, each from its first call on, as remove.bg does."""

KEPT = timedelta(days=400)
"""How long a month's usage is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Record):
    """An API key as the registry keeps it, under the digest of its text.

    id: that of the API Gateway key on the usage plan.
    rate: calls a minute.
    webhook_secret: "whsec_" and base64; signing needs it, so it is kept as it is.
    """

    id: str
    name: str
    owner: str
    scope: Scope
    rate: int
    created_at: datetime
    webhook_secret: str = field(repr=False)


def digest(key: str) -> str:
    """SHA-256 of a key's text, 64 hexadecimal digits. Keys are 256 bits of chance, so a plain hash cannot be guessed
    back."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls.

    id: the key's, or what `owner` is for a caller by IAM.
    key: under which name the registry has the key, for the secret of its webhooks; "" for a caller by IAM.
    rate: calls a minute.
    """

    id: str
    owner: str
    scope: Scope
    rate: int
    key: str = ""

    def sees(self, job: Job) -> bool:
        return self.scope == "all" or job.owner == self.owner

    @classmethod
    def of(cls, context: dict[str, Any]) -> Caller | None:
        """From API Gateway's request context: what our authorizer told, or whose signature AWS checked; None for
        nobody's call."""
        if told := context.get("authorizer"):
            rate = int(told["rate"])
            return cls(id=told["key_id"], owner=told["owner"], scope=told["scope"], rate=rate, key=told["key"])
        if arn := context.get("identity", {}).get("userArn"):
            owner = f"iam:{_principal(arn)}"
            return cls(id=owner, owner=owner, scope="own", rate=CALLS_A_MINUTE)
        return None

    def to_context(self) -> dict[str, str]:
        """What the authorizer tells API Gateway, which takes no structures, and `of` reads back."""
        return {
            "key_id": self.id,
            "owner": self.owner,
            "scope": self.scope,
            "rate": str(self.rate),
            "key": self.key,
        }


@dataclass(frozen=True, slots=True)
class Window:
    """The running window of one caller. limit: calls in it at most. calls: those so far, this one included."""

    limit: int
    calls: int
    ends: datetime

    def headers(self, now: datetime) -> dict[str, str]:
        """X-RateLimit-*, Reset in Unix seconds; and Retry-After, in seconds, for a call too many."""
        reset = int(self.ends.timestamp())
        said = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.calls)),
            "X-RateLimit-Reset": str(reset),
        }
        return said | ({"Retry-After": str(max(1, ceil(reset - now.timestamp())))} if self.exceeded else {})

    @property
    def exceeded(self) -> bool:
        return self.calls > self.limit

    def check(self) -> None:
        """Raises RateLimitExceeded."""
        if self.exceeded:
            raise RateLimitExceeded(
                f"{self.limit} calls a minute are this key's limit; Retry-After says when it is over."
            )


def count_call(registry: Registry, caller: Caller, now: datetime) -> Window:
    """One call more in the caller's window, which ends at a whole second."""
    ends = now.replace(microsecond=0) + WINDOW
    count = registry.add("window", caller.id, {"calls": 1}, expires_at=ends)
    return Window(caller.rate, count.counters["calls"], count.expires_at or ends)


def use(registry: Registry, owner: str, now: datetime, *, pictures: int = 0, refused: int = 0) -> None:
    """Counts what an owner used: images taken on, calls refused for their number."""
    name = _month(owner, f"{now.astimezone(UTC):%Y-%m}")
    registry.add("usage", name, {"pictures": pictures, "refused": refused}, expires_at=now + KEPT)


def used(registry: Registry, owner: str, month: str) -> dict[str, int]:
    """{"images": …, "refused": …} of a month as 2026-11."""
    return {"pictures": 0, "refused": 0} | (registry.get("usage", _month(owner, month)) or {})


def _month(owner: str, month: str) -> str:
    return f"{owner}#{month}"


def _principal(arn: str) -> str:
    """The ARN of a caller without the name of its session, which changes with every credential."""
    return arn.rpartition("/")[0] if ":assumed-role/" in arn else arn
