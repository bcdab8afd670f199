from datetime import timedelta
from typing import Any

import pytest

from maskdrop.errors import EndpointUnavailable, IdempotencyKeyReused, InvalidOptions, RequestInProgress
from maskdrop.idempotency import STORED_FOR, UNFINISHED_FOR, once
from tests.fakes import NOW, FakeRegistry

REQUEST = {"source": {"upload": "1"}, "engine": "selfie"}


class Work:
    """Gives another answer each time."""

    calls = 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return {"call": self.calls, "nothing": None}


def test_the_same_request_is_processed_once_with_equal_responses() -> None:
    registry, work = FakeRegistry(), Work()
    turned = dict(reversed(REQUEST.items()))
    answers = [once(registry, "shop", "k", request, NOW, work) for request in (REQUEST, turned, REQUEST)]
    assert answers == [{"call": 1, "nothing": None}] * 3


def test_another_request_under_the_same_key_is_refused() -> None:
    registry, work = FakeRegistry(), Work()
    once(registry, "shop", "k", REQUEST, NOW, work)
    with pytest.raises(IdempotencyKeyReused):
        once(registry, "shop", "k", {**REQUEST, "engine": "grabcut"}, NOW, work)
    assert work.calls == 1


@pytest.mark.parametrize(("owner", "key"), [("other", "k"), ("shop", "l"), ("shop#k", "k"), ("sho", "p#k")])
def test_keys_are_scoped_to_the_owner(owner: str, key: str) -> None:
    registry, work = FakeRegistry(), Work()
    once(registry, "shop", "k", REQUEST, NOW, work)
    assert once(registry, owner, key, REQUEST, NOW, work)["call"] == 2


def test_a_response_is_stored_for_a_day() -> None:
    registry, work = FakeRegistry(), Work()
    once(registry, "shop", "k", REQUEST, NOW, work)
    for later, call in ((STORED_FOR - timedelta(seconds=1), 1), (STORED_FOR, 2)):
        registry.now = NOW + later
        assert once(registry, "shop", "k", REQUEST, registry.now, work)["call"] == call


def test_a_request_during_the_first_one_is_refused() -> None:
    registry, work = FakeRegistry(), Work()

    def first() -> dict[str, Any]:
        with pytest.raises(RequestInProgress):
            once(registry, "shop", "k", REQUEST, NOW, work)
        with pytest.raises(IdempotencyKeyReused):
            once(registry, "shop", "k", {}, NOW, work)
        return work()

    assert once(registry, "shop", "k", REQUEST, NOW, first)["call"] == 1


def test_an_unfinished_request_may_be_repeated_after_a_minute() -> None:
    registry, work = FakeRegistry(), Work()

    def killed() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(registry, "shop", "k", REQUEST, NOW, killed)
    with pytest.raises(RequestInProgress):
        once(registry, "shop", "k", REQUEST, NOW, work)
    registry.now = NOW + UNFINISHED_FOR
    assert once(registry, "shop", "k", REQUEST, registry.now, work)["call"] == 1


def test_an_error_is_not_stored() -> None:
    registry, work = FakeRegistry(), Work()

    def busy() -> dict[str, Any]:
        raise EndpointUnavailable("Busy.")

    with pytest.raises(EndpointUnavailable):
        once(registry, "shop", "k", REQUEST, NOW, busy)
    assert once(registry, "shop", "k", {"another": "request"}, NOW, work)["call"] == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "ü", "a\n", "x" * 256])
def test_a_malformed_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidOptions, match="Idempotency-Key"):
        once(FakeRegistry(), "shop", key, REQUEST, NOW, Work())
