"""What GET /metrics says, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from maskdrop.wire import Outcome

CONTENT_TYPE = CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""Bounds of the histogram: from a small photo's decoding to the deadline."""


BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """One registry an app: two apps of one process do not mix."""

    def __init__(self, device: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # resident memory among others
        self._pictures = Counter(
            "maskdrop_pictures", "Images by what became of them.", ["engine", "outcome"], registry=self._registry
        )
        self._stages = Histogram(
            "maskdrop_stage_seconds", "Time of an image by stage.", ["stage"], buckets=SECONDS, registry=self._registry
        )
        self._batches = Histogram(
            "maskdrop_batch_pictures", "Images of a batch.", ["engine"], buckets=BATCHES, registry=self._registry
        )
        self._queue = Gauge("maskdrop_queue_pictures", "Images waiting or in work.", registry=self._registry)
        self._stuck = Gauge("maskdrop_workers_stuck", "Workers that outlived a deadline.", registry=self._registry)
        Gauge("maskdrop_device_info", "Where the engines run.", ["device"], registry=self._registry).labels(device).set(
            1
        )

    def count(self, outcome: Outcome) -> None:
        self._pictures.labels(outcome.engine, outcome.error.code if outcome.error else "done").inc()
        for stage, ms in outcome.timings.items():
            self._stages.labels(stage).observe(ms / 1000)

    def batch(self, engine: str, size: int) -> None:
        self._batches.labels(engine).observe(size)

    def page(self, *, queued: int, stuck: int) -> bytes:
        self._queue.set(queued)
        self._stuck.set(stuck)
        return generate_latest(self._registry)
