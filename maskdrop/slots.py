"""Limits what one owner has in progress at a time, so that a slow or busy owner does not occupy all functions.

A slot is an item of the registry that one call holds. It expires: a function that ends without freeing it holds it for
some seconds longer.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, cast

from maskdrop.errors import RateLimitExceeded
from maskdrop.job import UPLOADS_PREFIX, folder_of
from maskdrop.services import Download, Form, Interactive, Registry, Services, Storage, Web
from maskdrop.settings import Settings
from maskdrop.spending import count_bytes
from maskdrop.wire import ImageResponse, Invocation

TRIES = 8
"""Slots that a call tries. With more slots than that, a call may find none while a few are free."""

CALL_S = 60
"""Seconds after which the slot of a call expires: twice the time that API Gateway waits for the function."""


@contextmanager
def slot(registry: Registry, purpose: str, owner: str, *, count: int, seconds: int, now: datetime) -> Iterator[bool]:
    """Holds one of the owner's `count` slots for a purpose. Yields whether one was free. Raises TableUnavailable."""
    names = [f"{purpose}#{folder_of(owner)}#{number}" for number in random.sample(range(count), min(count, TRIES))]
    expires_at = now + timedelta(seconds=seconds)
    held = next((name for name in names if registry.put_new("slot", name, {}, expires_at=expires_at)), None)
    try:
        yield held is not None
    finally:
        if held:
            registry.delete("slot", held)


@dataclass(frozen=True, slots=True)
class _Limited:
    registry: Registry
    owner: str
    now: datetime

    @contextmanager
    def _limited(self, purpose: str, count: int) -> Iterator[None]:
        """Raises RateLimitExceeded."""
        with slot(self.registry, purpose, self.owner, count=count, seconds=CALL_S, now=self.now) as held:
            if not held:
                raise RateLimitExceeded(
                    f"{count} {purpose} of this caller are in progress, the maximum; retry when one has ended."
                )
            yield


@dataclass(frozen=True, slots=True)
class LimitedWeb(_Limited):
    """Downloads at most `settings.fetches_at_once` images at a time for one owner: a host may take 15 s for each."""

    web: Web
    settings: Settings

    def fetch(self, url: str) -> Download:
        with self._limited("downloads", self.settings.fetches_at_once):
            return self.web.fetch(url)

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        return self.web.post(url, headers, body)


@dataclass(frozen=True, slots=True)
class LimitedInteractive(_Limited):
    """Processes at most `settings.calls_at_once` images at a time for one owner."""

    interactive: Interactive
    settings: Settings

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        with self._limited("images", self.settings.calls_at_once):
            return self.interactive.cut_out(image, invocation)

    def segment_box(self, request: bytes) -> bytes:
        with self._limited("images", self.settings.calls_at_once):
            return self.interactive.segment_box(request)


@dataclass(frozen=True, slots=True)
class LimitedStorage(_Limited):
    """Counts what the requests of one owner store, at most `settings.bytes_per_day`. A form counts with the
    size for which it is signed. Other methods are those of the storage."""

    storage: Storage
    settings: Settings

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        if key.startswith(UPLOADS_PREFIX):
            self._count(len(body))
        self.storage.write(bucket, key, body, content_type)

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Form:
        self._count(bytes_max)
        return self.storage.form(bucket, key, content_type, bytes_max=bytes_max, seconds=seconds)

    def _count(self, size: int) -> None:
        """Raises RateLimitExceeded."""
        count_bytes(self.registry, self.owner, size, maximum=self.settings.bytes_per_day, now=self.now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage, name)


def limited(services: Services, owner: str, settings: Settings, now: datetime) -> Services:
    """The services of one request of an owner, with the limits above."""
    return replace(
        services,
        storage=cast(Storage, LimitedStorage(services.registry, owner, now, services.storage, settings)),
        web=LimitedWeb(services.registry, owner, now, services.web, settings),
        interactive=LimitedInteractive(services.registry, owner, now, services.interactive, settings),
    )
