"""The metrics of GET /metrics, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from maskdrop.wire import Outcome
from sagemaker_model.engines.verification import Comparison

CONTENT_TYPE = CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
"""Bounds of the histogram of stages, in seconds: from the decoding of a small photo to the deadline."""


BATCHES = (1, 2, 4, 8, 16, 32, 64)
"""Bounds of the histogram of batch sizes, in images."""


class Metrics:
    """The metrics of one app, in a registry of their own: two apps in one process do not share counters."""

    def __init__(self, device: str) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # resident memory among others
        self._images = Counter(
            "maskdrop_pictures", "Images by outcome.", ["engine", "outcome"], registry=self._registry
        )
        self._stages = Histogram(
            "maskdrop_stage_seconds",
            "Seconds of an image by stage.",
            ["stage"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "maskdrop_batch_pictures", "Images in a batch.", ["engine"], buckets=BATCHES, registry=self._registry
        )
        self._queue = Gauge("maskdrop_queue_pictures", "Images waiting or in progress.", registry=self._registry)
        self._stuck = Gauge(
            "maskdrop_workers_stuck", "Workers that exceeded the deadline and still run.", registry=self._registry
        )
        self._optimisations = Gauge(
            "maskdrop_optimisation",
            "1 if the optimisation of the engine is on, 0 if it differed from float32 and is switched off.",
            ["engine", "optimisation"],
            registry=self._registry,
        )
        self._engines = Gauge(
            "maskdrop_engine_available",
            "0 if the engine returns NaN or infinity for the built-in image.",
            ["engine"],
            registry=self._registry,
        )
        Gauge("maskdrop_device_info", "The device of the engines.", ["device"], registry=self._registry).labels(
            device
        ).set(1)

    def count(self, outcome: Outcome) -> None:
        self._images.labels(outcome.engine, outcome.error.code if outcome.error else "done").inc()
        for stage, ms in outcome.timings.items():
            self._stages.labels(stage).observe(ms / 1000)

    def engine(self, engine: str, comparisons: Iterable[Comparison] | None) -> None:
        """Records an engine that is ready, with the comparisons of its optimisations, or unavailable (None)."""
        self._engines.labels(engine).set(comparisons is not None)
        for one in comparisons or ():
            self._optimisations.labels(engine, one.optimisation).set(one.passed)

    def batch(self, engine: str, size: int) -> None:
        self._batches.labels(engine).observe(size)

    def render(self, *, queued: int, stuck: int) -> bytes:
        self._queue.set(queued)
        self._stuck.set(stuck)
        return generate_latest(self._registry)
