"""The metrics of requests, beside those of the pipeline (sagemaker_model/serving/metrics.py)."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from lambdas.http.openapi import methods_at
from lambdas.http.routes import ERROR_RESPONSES

SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 120)
"""Bounds of the histogram of durations, in seconds: from /v1/health to the default of `request_s`."""

JOB = re.compile(r"/v1/jobs/[^/]+")


class HttpMetrics:
    """Counts requests and their durations. Unknown paths share one label, so that callers cannot add labels."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "maskdrop_requests", "Requests by path and status.", ["path", "method", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "maskdrop_request_seconds",
            "Seconds of a request, from its headers to its response.",
            ["path"],
            buckets=SECONDS,
            registry=self._registry,
        )

    def count(self, path: str, method: str, status: int, seconds: float) -> None:
        known = path in ERROR_RESPONSES or methods_at(path)
        label = JOB.sub("/v1/jobs/{id}", path) if known else "other"
        self._requests.labels(label, method if known else "other", str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self._registry)
