"""The simulated instances of an endpoint."""

from __future__ import annotations

from local.autoscaling import targets
from local.instances import Instances
from tests.unit.local.test_autoscaling import ENDPOINT, TEMPLATE


def instances(start_s: float = 150) -> Instances:
    return Instances(targets(TEMPLATE)[ENDPOINT], start_s=start_s)


def test_a_backlog_wakes_the_first_instance_which_is_ready_after_its_start() -> None:
    subject = instances()
    subject.advance(60, 5)
    assert (subject.desired, subject.ready) == (0, 0)
    # The datapoint of [60, 120) is complete at 120 s; the instance processes requests 150 s later.
    subject.advance(120, 5)
    assert (subject.desired, subject.ready) == (1, 0)
    subject.advance(269, 5)
    assert subject.ready == 0
    subject.advance(270, 5)
    assert subject.ready == 1


def test_an_idle_endpoint_returns_to_zero_after_fifteen_minutes() -> None:
    subject = instances(start_s=0)
    subject.advance(120, 5)
    assert subject.ready == 1
    subject.advance(120 + 60, 0)
    for minute in range(4, 30):
        subject.advance(minute * 60, 0)
    assert [(one.before, one.after) for one in subject.activities] == [(0, 1), (1, 0)]
    # Datapoints from [180, 240) to [1020, 1080): the fifteenth is complete at 1080 s.
    assert subject.activities[1].at_s == 1080
    assert (subject.desired, subject.ready) == (0, 0)


def test_a_late_call_evaluates_every_minute_that_passed() -> None:
    subject, regular = instances(), instances()
    subject.advance(1200, 30)
    for minute in range(1, 21):
        regular.advance(minute * 60, 30)
    assert subject.activities == regular.activities
    assert len(subject.activities) > 1
