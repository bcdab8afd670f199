"""The registry in memory and the registry in DynamoDB keep the same promises."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from lambdas.adapters.registry import DynamoDBRegistry
from local.connect import client
from maskdrop.services import Count, Registry
from tests.e2e.conftest import Running
from tests.fakes import FakeRegistry

AHEAD = timedelta(days=1)
"""The emulator deletes what has ended by its own clock; a day ahead of it, our clock alone decides."""


@dataclass
class Timed:
    """A registry, and the time that it believes it is."""

    registry: Registry
    set_time: Callable[[datetime], None]
    now: datetime

    def later(self, seconds: float) -> datetime:
        return self.now + timedelta(seconds=seconds)


@pytest.fixture(params=["fake", "dynamodb"])
def here(request: pytest.FixtureRequest) -> Timed:
    now = datetime.now(UTC).replace(microsecond=0) + AHEAD
    if request.param == "fake":
        fake = FakeRegistry(now=now)
        return Timed(fake, lambda moment: setattr(fake, "now", moment), now)
    running: Running = request.getfixturevalue("running")
    time = [now]
    real = DynamoDBRegistry(
        client(running.config, "dynamodb"), running.stack.registry, clock=lambda: time[0].timestamp()
    )
    return Timed(real, lambda moment: time.__setitem__(0, moment), now)


@pytest.fixture
def name() -> str:
    return f"{uuid.uuid4().hex} ü#2026-11"


def test_get_returns_the_value_unchanged(here: Timed, name: str) -> None:
    value = {"text": "ü", "number": 3, "share": 0.25, "no": False, "none": None, "list": [1, {"a": "b"}], "empty": {}}
    here.registry.put("preset", name, value)
    assert here.registry.get("preset", name) == value


def test_a_name_belongs_to_one_kind(here: Timed, name: str) -> None:
    here.registry.put("preset", name, {"a": 1})
    assert here.registry.get("key", name) is None


def test_put_replaces_the_value_and_the_expiry(here: Timed, name: str) -> None:
    here.registry.put("preset", name, {"a": 1}, expires_at=here.later(5))
    here.registry.put("preset", name, {"b": 2})
    here.set_time(here.later(10))
    assert here.registry.get("preset", name) == {"b": 2}


def test_put_new_fails_for_an_existing_name(here: Timed, name: str) -> None:
    assert here.registry.put_new("idempotency", name, {"a": 1})
    assert not here.registry.put_new("idempotency", name, {"b": 2})
    assert here.registry.get("idempotency", name) == {"a": 1}


def test_deleting_an_item_twice_succeeds(here: Timed, name: str) -> None:
    here.registry.put("key", name, {"a": 1})
    here.registry.delete("key", name)
    here.registry.delete("key", name)
    assert here.registry.get("key", name) is None


def test_list_returns_all_items_of_a_kind_sorted_by_name(here: Timed, name: str) -> None:
    for number in (2, 1):
        here.registry.put("preset", f"{name}{number}", {"number": number})
    here.registry.put("idempotency", f"{name}3", {"number": 3})
    listed = {one: value for one, value in here.registry.list("preset").items() if one.startswith(name)}
    assert list(listed.items()) == [(f"{name}1", {"number": 1}), (f"{name}2", {"number": 2})]


def test_an_expired_item_does_not_exist(here: Timed, name: str) -> None:
    here.registry.put("idempotency", name, {"a": 1}, expires_at=here.later(5))
    here.set_time(here.later(4))
    assert here.registry.get("idempotency", name) == {"a": 1}
    here.set_time(here.later(5))
    assert here.registry.get("idempotency", name) is None
    assert name not in here.registry.list("idempotency")
    assert here.registry.put_new("idempotency", name, {"b": 2})


def test_add_counts_from_zero(here: Timed, name: str) -> None:
    assert here.registry.add("usage", name, {"pictures": 2}) == Count({"pictures": 2}, None)
    assert here.registry.add("usage", name, {"pictures": 1, "refused": 1}) == Count({"pictures": 3, "refused": 1}, None)
    assert here.registry.get("usage", name) == {"pictures": 3, "refused": 1}


def test_a_window_keeps_its_expiry_and_a_new_window_follows(here: Timed, name: str) -> None:
    def call(seconds: float) -> Count:
        here.set_time(here.later(seconds))
        return here.registry.add("window", name, {"calls": 1}, expires_at=here.later(seconds + 60))

    assert call(0) == Count({"calls": 1}, here.later(60))
    assert call(59) == Count({"calls": 2}, here.later(60))
    assert call(60) == Count({"calls": 1}, here.later(120))


def test_concurrent_additions_are_all_counted(here: Timed, name: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: here.registry.add("usage", name, {"calls": 1}), range(16)))
    assert sorted(count.counters["calls"] for count in counts) == list(range(1, 17))
