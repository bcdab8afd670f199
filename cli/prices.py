"""Prices of AWS, and the costs of bulk processing by line. List prices of us-east-1, autumn 2026, in US dollars."""

from __future__ import annotations

from local.simulation import Minute, Outcome

INSTANCES = {
    "ml.g4dn.xlarge": 0.736,
    "ml.g6.xlarge": 1.127,
    "ml.g5.xlarge": 1.408,
    "ml.g6e.xlarge": 2.61,
    "ml.c6i.xlarge": 0.204,
}
"""Price of a SageMaker instance for an hour (AWS Price List, August 2026)."""

S3_WRITE, S3_READ = 5e-6, 4e-7
"""A PUT, and a GET or HEAD."""

TABLE_WRITE, TABLE_READ = 6.25e-7, 1.25e-7
"""A write unit (1 KB) and a read unit (4 KB) of an on-demand table."""

SQS_REQUEST, SNS_MESSAGE, EVENT = 4e-7, 5e-7, 1e-6
"""A request of SQS, a message of SNS, an event on an event bus."""

LAMBDA_CALL, LAMBDA_GB_S = 2e-7, 1.33334e-5
"""An invocation, and a second with 1 GB on arm64."""

LOG_GB, STORED_GB_MONTH = 0.50, 0.023
"""A GB of logs; a GB in S3 Standard for a month."""

LOG_KB_CALL = 1.0
"""Log lines and metrics of an invocation in kB: three lines of `ingest`, two of `record`."""

VALVE_BYTES = 124
"""Size of the registry item of one bundle (`maskdrop.valve`): 140 kB for 1,125 bundles."""

INDEX_WRITES = 3
"""Writes to the index by state for an image: `submitted` is added, then removed, and `done` is added."""


def valve_read_units(bundles: float) -> float:
    """Read units of one sum of the images at the endpoint: a consistent read of an item for each bundle."""
    return 1 + bundles * VALVE_BYTES / 4096


def costs(outcome: Outcome, *, instance_usd: float, result_mb: float, keep_days: int) -> dict[str, float]:
    """Returns the costs of a simulated run in US dollars by line.

    instance_usd: price of an instance for an hour. result_mb: size of a result. keep_days: days for which results are
    stored. Uploads are stored until their owner deletes them, so their storage is not counted.
    """
    counts = outcome.counts
    images, bundles = counts.images, counts.bundles
    waited = min(images, counts.delayed)
    writes = 2 * counts.claims + INDEX_WRITES * counts.claims + 2 * waited + 3 * bundles
    reads = (counts.ingest_calls + counts.record_calls) * valve_read_units(_mean_bundles(outcome.minutes))
    messages = images + counts.retries + counts.delayed
    calls = counts.ingest_calls + counts.record_calls
    return {
        "instances": counts.instance_s / 3600 * instance_usd,
        # The photo, the result; of a bundle the manifest, the mark that it has started, and the response.
        "S3 requests": S3_WRITE * (images + counts.claims + 3 * bundles) + S3_READ * (2 * counts.claims + 2 * bundles),
        "DynamoDB": TABLE_WRITE * writes + TABLE_READ * reads,
        # Sent, then received and deleted in batches of 10; notifications in batches that are not full.
        "SQS and SNS": SQS_REQUEST * (1.2 * messages + 3 * bundles) + SNS_MESSAGE * bundles,
        "Lambda": LAMBDA_CALL * calls + LAMBDA_GB_S * (counts.ingest_s + counts.record_s),
        "EventBridge": EVENT * images,
        "logs": LOG_GB * LOG_KB_CALL * calls / 1e6,
        f"storage of results, {keep_days} days": STORED_GB_MONTH * images * result_mb / 1000 * keep_days / 30,
    }


def _mean_bundles(minutes: list[Minute]) -> float:
    return sum(minute.bundles for minute in minutes) / max(len(minutes), 1)
