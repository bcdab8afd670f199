"""The valve with several callers at a time, and its pauses."""

import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from maskdrop.valve import DELAY_MAX_S, PAUSE_S, REMEMBERED_S, RESERVED_S, Valve
from tests.fakes import NOW, SETTINGS, FakeRegistry, minutes_later

LIMIT = 1000


def a_valve(registry: FakeRegistry, minutes: float = 0) -> Valve:
    registry.now = minutes_later(minutes)
    return Valve(registry, replace(SETTINGS, backlog_max=LIMIT), registry.now)


@pytest.mark.parametrize("seed", range(5))
def test_concurrent_callers_never_exceed_the_limit_and_use_the_room_that_is_left(seed: int) -> None:
    registry, chance = FakeRegistry(), random.Random(seed)  # noqa: S311  no secret
    requests = [{f"{caller}-{n}": chance.randint(1, 64) for n in range(4)} for caller in range(32)]
    valve = a_valve(registry)

    def submit(bundles: dict[str, int]) -> int:
        allowed = valve.reserve(bundles)
        for bundle in allowed:
            valve.hold(bundle, bundles[bundle])
        return sum(bundles[bundle] for bundle in allowed)

    with ThreadPoolExecutor(8) as callers:
        submitted = sum(callers.map(submit, requests))
    assert submitted == sum(value["images"] for value in registry.list("valve").values())
    assert submitted <= LIMIT
    assert submitted + submit({f"last-{n}": 1 for n in range(LIMIT)}) == LIMIT


def test_room_that_is_reserved_and_not_used_becomes_free() -> None:
    registry = FakeRegistry()
    assert a_valve(registry).reserve({"a": LIMIT}) == {"a"}
    assert a_valve(registry, RESERVED_S / 60 - 0.1).reserve({"b": 1}) == set()
    assert a_valve(registry, RESERVED_S / 60).reserve({"b": 1}) == {"b"}


def test_a_pause_stops_all_reservations_and_is_not_extended_by_waiting_callers() -> None:
    registry = FakeRegistry()
    assert a_valve(registry).pause() == PAUSE_S
    for minutes in (0.3, 0.6, 0.9):
        assert a_valve(registry, minutes).reserve({"a": 1}) == set()
        assert a_valve(registry, minutes).pause() == PAUSE_S
    assert a_valve(registry, PAUSE_S / 60).reserve({"a": 1}) == {"a"}


def test_a_pause_continues_the_last_one_with_a_longer_delay_unless_submissions_resumed() -> None:
    registry = FakeRegistry()
    delays = [a_valve(registry, minutes).pause() for minutes in (0, 5, 12, 27, 42, 75, 100)]
    assert delays == [PAUSE_S, 300, 720, DELAY_MAX_S, DELAY_MAX_S, PAUSE_S, PAUSE_S]


def test_messages_may_be_delayed_until_the_pause_is_no_longer_remembered() -> None:
    registry = FakeRegistry()
    assert not a_valve(registry).has_delayed_messages()
    a_valve(registry).pause()
    assert a_valve(registry, REMEMBERED_S / 60 - 0.1).has_delayed_messages()
    assert not a_valve(registry, REMEMBERED_S / 60).has_delayed_messages()


def test_bundles_of_an_endpoint_that_a_change_of_the_mode_has_deleted_take_no_room() -> None:
    registry = FakeRegistry()
    before = a_valve(registry)
    before.hold("a", LIMIT)
    after = replace(before, settings=replace(before.settings, endpoint="maskdrop-test-bulk-serverless"))
    assert after.reserve({"b": LIMIT}) == {"b"}
    assert after.reserve({"c": 1}) == set()


def test_a_bundle_can_be_released_twice() -> None:
    registry = FakeRegistry()
    valve = a_valve(registry)
    valve.hold("a", LIMIT)
    assert registry.now == NOW
    for _ in range(2):
        valve.release("a")
    assert valve.reserve({"b": LIMIT}) == {"b"}
