"""Limits of AWS and of a stage, compared with the peaks of a simulated run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cli.prices import INDEX_WRITES, valve_read_units
from infra.stages import Stage
from local.simulation import PARTITION_UNITS, STATE_UNITS, Minute, Outcome, System


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: its name, the peak of the run, what is allowed, and the change that lifts it."""

    name: str
    peak: float
    allowed: float
    lifted_by: str

    @property
    def share(self) -> float:
        """Peak as a share of what is allowed. 1: the limit is reached."""
        return self.peak / self.allowed


def limits(outcome: Outcome, system: System, stage: Stage) -> list[Limit]:
    """Returns all limits, the one that is met first at the front: the one with the highest share.

    Rates are the highest means of a minute. stage: its limits are compared with those of `system`, which may be a
    larger plan. Sources: service quotas and developer guides of AWS, autumn 2026; a quota marked "raise" is one that
    Service Quotas can change.
    """
    minutes = outcome.minutes

    def peak(value: Callable[[Minute], float]) -> float:
        return max(map(value, minutes), default=0.0)

    finished = peak(lambda one: one.finished) / 60
    changes = peak(lambda one: one.claimed + one.finished) / 60
    claimed = peak(lambda one: one.claimed) / 60
    found = [
        Limit(
            "instances, bulk_max_instances",
            peak(lambda one: one.desired),
            stage.bulk_max_instances,
            "raise bulk_max_instances, and the quota for the instance type",
        ),
        Limit(
            "images at the endpoint",
            peak(lambda one: one.submitted),
            system.backlog_max,
            "more instances; until then further photos wait in SQS",
        ),
        Limit("hours of a bundle at the endpoint", outcome.endpoint_s / 3600, 6, "more instances"),
        Limit(
            "claims/s of ingest",
            claimed,
            system.executions * system.batch_max / _seconds(system.ingest_s, system.batch_max),
            "raise lambda_concurrency and SOURCE_EXECUTIONS",
        ),
        Limit(
            "images/s of record",
            finished,
            system.executions
            * system.notifications_max
            * system.bundle_max
            / _seconds(system.record_s, system.notifications_max * system.bundle_max),
            "raise lambda_concurrency and SOURCE_EXECUTIONS",
        ),
        Limit(
            "Lambda executions, lambda_concurrency",
            peak(lambda one: one.executions),
            stage.lambda_concurrency,
            "raise the quota and lambda_concurrency",
        ),
        Limit(
            "write units/s of one partition of by_state",
            changes * STATE_UNITS / system.shards,
            PARTITION_UNITS,
            "raise SHARDS (lambdas/adapters/jobs.py)",
        ),
        Limit(
            "write units/s of by_state in a new table",
            finished * INDEX_WRITES * STATE_UNITS,
            4_000,
            "warm throughput of the table; it doubles by itself within 30 minutes",
        ),
        Limit(
            "read units/s of the partition `valve`",
            claimed / system.batch_max * valve_read_units(peak(lambda one: one.bundles)),
            3_000,
            "a smaller BACKLOG_S, or a sum that is cached for a second",
        ),
        Limit("messages in flight", peak(lambda one: one.in_flight), 120_000, "raise the quota of SQS"),
        Limit("S3 PUT/s of one prefix", finished, 3_500, "more presets: each has a prefix of its own"),
        Limit("S3 GET/s of one prefix", 2 * finished, 5_500, "more presets: each has a prefix of its own"),
        Limit("PutEvents calls/s", finished / 10, 10_000, "raise the quota of EventBridge, 600 in small Regions"),
        Limit("days in SQS", outcome.percentile(100) / 86_400 if outcome.counts.images else 0, 14, "more instances"),
    ]
    return sorted(found, key=lambda limit: -limit.share)


def _seconds(duration: tuple[float, float], images: int) -> float:
    return duration[0] + duration[1] * images
