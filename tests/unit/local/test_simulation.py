"""Compares the simulation of the bulk path with formulae of queueing theory, and with the rules of the code."""

from dataclasses import replace
from math import factorial

import numpy as np
import pytest

from local.autoscaling import Target
from local.simulation import PARTITION_UNITS, STATE_UNITS, Outcome, System, Times, bulk_target, simulate
from maskdrop.valve import PAUSE_S

INSTANT = System(
    images_per_second=1.0,
    target=Target(endpoint="bulk", minimum=1, maximum=1),
    concurrency=1,
    transfer_s=0.0,
    bundle_max=1,
    executions=100_000,
    window_s=0.0,
    record_window_s=0.0,
    ingest_s=(0.0, 0.0),
    record_s=(0.0, 0.0),
    event_s=0.0,
    notification_s=0.0,
    shards=10**9,
)
"""Only the instances take time: they process single images, 1 a second each."""


def poisson(rate: float, images: int) -> Times:
    """Times of random, independent arrivals: `rate` in a second, exactly that in the mean."""
    times = np.cumsum(np.random.default_rng(7).exponential(1 / rate, images))
    return times * (images / rate / times[-1])


def mean_wait(outcome: Outcome) -> float:
    """Mean seconds that an image waits before its computation, without the sampling error of the computation."""
    return float(outcome.completion_s.mean()) - outcome.counts.busy_s / outcome.counts.images


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_constant_service_times_wait_as_in_an_m_d_1_queue(load: float) -> None:
    outcome = simulate(replace(INSTANT, spread=0.0), poisson(load, 25_000))
    assert mean_wait(outcome) == pytest.approx(load / (2 * (1 - load)), rel=0.05)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (3, 0.7), (5, 0.7)])
def test_exponential_service_times_wait_as_in_an_m_m_c_queue(servers: int, load: float) -> None:
    """Erlang's C formula: the probability of waiting, times the mean time of those that wait."""
    offered = servers * load
    waits = offered**servers / factorial(servers) / (1 - load)
    probability = waits / (sum(offered**k / factorial(k) for k in range(servers)) + waits)
    system = replace(INSTANT, spread=1.0, target=Target(endpoint="bulk", minimum=servers, maximum=servers))
    outcome = simulate(system, poisson(offered, 25_000))
    assert mean_wait(outcome) == pytest.approx(probability / (servers * (1 - load)), rel=0.08)


STAGE = System(images_per_second=20.0, target=bulk_target(2))


def test_every_image_is_recorded_once_and_the_endpoint_sleeps_afterwards() -> None:
    outcome = simulate(STAGE, poisson(5.0, 5_000))
    assert outcome.counts.images == len(outcome.completion_s) == 5_000
    assert outcome.counts.claims == 5_000
    last = outcome.minutes[-1]
    assert (last.waiting, last.submitted, last.bundles, last.desired) == (0, 0, 0, 0)
    assert sum(minute.finished for minute in outcome.minutes) == sum(minute.arrived for minute in outcome.minutes)


def test_the_same_seed_gives_the_same_result_and_another_one_does_not() -> None:
    times = poisson(5.0, 1_000)
    first, again, other = (simulate(STAGE, times, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.completion_s, again.completion_s)
    assert not np.array_equal(first.completion_s, other.completion_s)


def test_the_first_images_wait_for_the_alarm_and_the_start_of_an_instance() -> None:
    outcome = simulate(replace(STAGE, start_s=(480.0, 480.0)), np.zeros(64))
    assert 480 + 60 < outcome.completion_s.min() <= outcome.completion_s.max() < 480 + 180 + 64


def test_failed_images_are_retried_and_fail_after_the_last_attempt() -> None:
    outcome = simulate(replace(STAGE, failures=0.5, max_attempts=3), np.zeros(8_000))
    assert outcome.counts.images + outcome.counts.failed == 8_000
    assert outcome.counts.failed == pytest.approx(8_000 * 0.5**3, rel=0.1)
    assert outcome.counts.retries == pytest.approx(8_000 * (0.5 + 0.5**2), rel=0.1)


def test_images_beyond_the_backlog_limit_wait_in_sqs_and_return_after_the_pause() -> None:
    outcome = simulate(replace(STAGE, backlog_max=640), np.zeros(5_000))
    assert outcome.counts.images == 5_000
    assert max(minute.submitted for minute in outcome.minutes) <= 640
    assert outcome.counts.delayed > 4_000
    assert max(minute.waiting for minute in outcome.minutes) >= 5_000 - 640
    unlimited = simulate(STAGE, np.zeros(5_000))
    assert unlimited.counts.delayed == 0
    assert outcome.end_s >= unlimited.end_s + PAUSE_S / 2


@pytest.mark.parametrize("shards", [1, 2])
def test_the_partitions_of_the_state_index_limit_the_images_in_a_second(shards: int) -> None:
    """Each image is added to a state and removed from it: two changes."""
    target = Target(endpoint="bulk", minimum=1, maximum=1)
    fast = replace(STAGE, images_per_second=10_000.0, target=target, backlog_max=100_000, transfer_s=0.0)
    outcome = simulate(replace(fast, shards=shards), np.zeros(100_000))
    allowed = PARTITION_UNITS * shards / (2 * STATE_UNITS)
    assert 100_000 / outcome.end_s == pytest.approx(allowed, rel=0.05)


def test_a_run_stops_when_more_than_a_hundredth_of_the_images_miss_the_deadline() -> None:
    times = np.zeros(10_000)
    full = simulate(STAGE, times)
    stopped = simulate(STAGE, times, deadline_s=60.0)
    assert stopped.late
    assert not full.late
    assert stopped.counts.images < full.counts.images
    assert not simulate(STAGE, times, deadline_s=full.percentile(100)).late


def test_instances_are_billed_from_their_start_until_they_are_removed() -> None:
    outcome = simulate(STAGE, np.zeros(20_000))
    by_minute = sum(minute.ready for minute in outcome.minutes) * 60
    assert outcome.counts.instance_s == pytest.approx(by_minute, rel=0.05)
    assert 0 < outcome.counts.busy_s < outcome.counts.instance_s
