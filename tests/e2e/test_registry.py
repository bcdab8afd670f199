"""Runs the same checks on the in-memory fake of the registry, on SQLite and on DynamoDB."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lambdas.adapters.registry import DynamoDBRegistry
from local.connect import client
from maskdrop.services import Count, Registry
from standalone.database import Database
from standalone.registry import SqliteRegistry
from tests.e2e.conftest import Running
from tests.fakes import FakeRegistry

AHEAD = timedelta(days=1)
"""Offset of the tested clock, so that the emulator, which uses its own clock, deletes no item during a test."""


@dataclass
class Timed:
    """A registry with a settable clock."""

    registry: Registry
    set_time: Callable[[datetime], None]
    now: datetime

    def later(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)


@pytest.fixture(params=["fake", "sqlite", "dynamodb"])
def timed(request: pytest.FixtureRequest, tmp_path: Path) -> Timed:
    now = datetime.now(UTC).replace(microsecond=0) + AHEAD
    if request.param == "fake":
        fake = FakeRegistry(now=now)
        return Timed(fake, lambda moment: setattr(fake, "now", moment), now)
    if request.param == "sqlite":
        clock = [now]
        sqlite = SqliteRegistry(Database(tmp_path), clock=lambda: clock[0].timestamp())
        return Timed(sqlite, lambda moment: clock.__setitem__(0, moment), now)
    running: Running = request.getfixturevalue("running")
    time = [now]
    real = DynamoDBRegistry(
        client(running.config, "dynamodb"), running.stack.registry, clock=lambda: time[0].timestamp()
    )
    return Timed(real, lambda moment: time.__setitem__(0, moment), now)


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex} ü#2026-11"


def test_get_returns_the_value_unchanged(timed: Timed, name: str) -> None:
    value = {"text": "ü", "number": 3, "share": 0.25, "no": False, "none": None, "list": [1, {"a": "b"}], "empty": {}}
    timed.registry.put("preset", name, value)
    assert timed.registry.get("preset", name) == value


def test_a_name_belongs_to_one_kind(timed: Timed, name: str) -> None:
    timed.registry.put("preset", name, {"a": 1})
    assert timed.registry.get("key", name) is None


def test_put_replaces_the_value_and_the_expiry(timed: Timed, name: str) -> None:
    timed.registry.put("preset", name, {"a": 1}, expires_at=timed.later(5))
    timed.registry.put("preset", name, {"b": 2})
    timed.set_time(timed.later(10))
    assert timed.registry.get("preset", name) == {"b": 2}


def test_put_new_fails_for_an_existing_name(timed: Timed, name: str) -> None:
    assert timed.registry.put_new("idempotency", name, {"a": 1})
    assert not timed.registry.put_new("idempotency", name, {"b": 2})
    assert timed.registry.get("idempotency", name) == {"a": 1}


def test_deleting_an_item_twice_succeeds(timed: Timed, name: str) -> None:
    timed.registry.put("key", name, {"a": 1})
    timed.registry.delete("key", name)
    timed.registry.delete("key", name)
    assert timed.registry.get("key", name) is None


def test_list_returns_all_items_of_a_kind_sorted_by_name(timed: Timed, name: str) -> None:
    for number in (2, 1):
        timed.registry.put("preset", f"{name}{number}", {"number": number})
    timed.registry.put("idempotency", f"{name}3", {"number": 3})
    listed = {one: value for one, value in timed.registry.list("preset").items() if one.startswith(name)}
    assert list(listed.items()) == [(f"{name}1", {"number": 1}), (f"{name}2", {"number": 2})]


def test_an_expired_item_does_not_exist(timed: Timed, name: str) -> None:
    timed.registry.put("idempotency", name, {"a": 1}, expires_at=timed.later(5))
    timed.set_time(timed.later(4))
    assert timed.registry.get("idempotency", name) == {"a": 1}
    timed.set_time(timed.later(5))
    assert timed.registry.get("idempotency", name) is None
    assert name not in timed.registry.list("idempotency")
    assert timed.registry.put_new("idempotency", name, {"b": 2})


def test_add_counts_from_zero(timed: Timed, name: str) -> None:
    assert timed.registry.add("usage", name, {"pictures": 2}) == Count({"pictures": 2}, None)
    assert timed.registry.add("usage", name, {"pictures": 1, "refused": 1}) == Count(
        {"pictures": 3, "refused": 1}, None
    )
    assert timed.registry.get("usage", name) == {"pictures": 3, "refused": 1}


def test_a_window_keeps_its_expiry_and_a_new_window_follows(timed: Timed, name: str) -> None:
    def call(seconds: float) -> Count:
        timed.set_time(timed.later(seconds))
        return timed.registry.add("window", name, {"calls": 1}, expires_at=timed.later(seconds + 60))

    assert call(0) == Count({"calls": 1}, timed.later(60))
    assert call(59) == Count({"calls": 2}, timed.later(60))
    assert call(60) == Count({"calls": 1}, timed.later(120))


def test_concurrent_additions_are_all_counted(timed: Timed, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: timed.registry.add("usage", name, {"calls": 1}), range(16)))
    assert sorted(count.counters["calls"] for count in counts) == list(range(1, 17))
