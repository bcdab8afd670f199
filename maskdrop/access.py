"""Access to the API: keys, callers, rate limits and usage."""

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
"""The jobs that a caller sees: its owner's, or all, including those of the drop folder."""

MISSING_KEY = "This URL requires an API key: send it in X-Api-Key or Authorization: Bearer."

OPEN_PATHS = ("/v1/health", "/v1/openapi.json", "/v1/docs")
"""Paths that need no key."""

IAM_PREFIX = "/iam"
"""Prefix of the same paths for callers who sign with AWS credentials instead of a key."""

CALLS_A_MINUTE = 600
"""Default rate limit of a key, and that of callers by IAM."""

WINDOW = timedelta(seconds=60)
"""Length of a rate-limit window. It starts with its first call, as remove.bg's does."""

KEPT = timedelta(days=400)
"""Retention of a month's usage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key(Record):
    """An API key as stored in the registry, under the digest of its text.

    id: id of the API Gateway key on the usage plan.
    rate: calls per minute.
    webhook_secret: "whsec_" and base64; "" in the registry, which has it in another item, of kind "secret": signing
        needs the plain text, authenticating does not.
    """

    id: str
    name: str
    owner: str
    scope: Scope
    rate: int
    created_at: datetime
    webhook_secret: str = field(repr=False, default="")


def digest(key: str) -> str:
    """SHA-256 of a key's text, 64 hexadecimal digits. Keys are 256 random bits, so a plain hash
    cannot be reversed by guessing."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The authenticated caller of a request.

    id: id of the key; the owner for a caller by IAM.
    key: name of the key in the registry, for its webhook secret; "" for a caller by IAM.
    rate: calls per minute.
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
        """From API Gateway's request context: the authorizer's context, or the IAM identity that AWS verified. None for
        an unauthenticated request."""
        if claims := context.get("authorizer"):
            rate = int(claims["rate"])
            return cls(id=claims["key_id"], owner=claims["owner"], scope=claims["scope"], rate=rate, key=claims["key"])
        if arn := context.get("identity", {}).get("userArn"):
            owner = f"iam:{_principal(arn)}"
            return cls(id=owner, owner=owner, scope="own", rate=CALLS_A_MINUTE)
        return None

    def to_context(self) -> dict[str, str]:
        """The authorizer's context, which `of` reads: flat text fields, since API Gateway accepts no structures."""
        return {
            "key_id": self.id,
            "owner": self.owner,
            "scope": self.scope,
            "rate": str(self.rate),
            "key": self.key,
        }


@dataclass(frozen=True, slots=True)
class Window:
    """The current rate-limit window of a caller. limit: maximum of calls; calls: calls so far, with this one."""

    limit: int
    calls: int
    ends: datetime

    def headers(self, now: datetime) -> dict[str, str]:
        """X-RateLimit-*, with Reset in Unix seconds; Retry-After, in seconds, for a call above the limit."""
        reset = int(self.ends.timestamp())
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.calls)),
            "X-RateLimit-Reset": str(reset),
        }
        return headers | ({"Retry-After": str(max(1, ceil(reset - now.timestamp())))} if self.exceeded else {})

    @property
    def exceeded(self) -> bool:
        return self.calls > self.limit

    def check(self) -> None:
        """Raises RateLimitExceeded."""
        if self.exceeded:
            raise RateLimitExceeded(
                f"The rate limit of {self.limit} requests per minute is exceeded; retry after `Retry-After` seconds."
            )


def count_call(registry: Registry, caller: Caller, now: datetime) -> Window:
    """Counts a call in the caller's rate-limit window, which ends at a whole second."""
    ends = now.replace(microsecond=0) + WINDOW
    count = registry.add("window", caller.id, {"calls": 1}, expires_at=ends)
    return Window(caller.rate, count.counters["calls"], count.expires_at or ends)


def add_usage(registry: Registry, owner: str, now: datetime, *, pictures: int = 0, refused: int = 0) -> None:
    """Adds to an owner's usage of the month: images accepted, calls rejected by the rate limit."""
    amounts = {"pictures": pictures, "refused": refused}
    registry.add("usage", month_of(owner, now), amounts, expires_at=now + KEPT)


def usage_of(registry: Registry, owner: str, month: str) -> dict[str, int | float]:
    """Usage of an owner in a month, such as 2026-11: numbers of images accepted, of calls rejected and of images
    generated, and the price of the latter in US dollars."""
    counters = registry.get("usage", _month(owner, month)) or {}
    counts = {name: int(counters.get(name, 0)) for name in ("pictures", "refused", "generated")}
    return {**counts, "generated_usd": counters.get("generated_microusd", 0) / 1_000_000}


def month_of(owner: str, now: datetime) -> str:
    """Name, in the registry, of the usage of an owner in the current month (UTC)."""
    return _month(owner, f"{now.astimezone(UTC):%Y-%m}")


def _month(owner: str, month: str) -> str:
    return f"{owner}#{month}"


def _principal(arn: str) -> str:
    """The caller's ARN without the session name, which changes with every credential."""
    return arn.rpartition("/")[0] if ":assumed-role/" in arn else arn
