"""Logs, metrics and traces of the functions, with Powertools; created at the first call."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from lambdas.environment import settings
from maskdrop.edit import Change
from maskdrop.errors import EndpointStarting, InputError, MaskdropError, Unavailable
from maskdrop.job import Job, State
from maskdrop.redaction import redacted_json
from maskdrop.services import EditedImage, Editor, EditRequest, Endpoint, Events, Interactive
from maskdrop.wire import ImageResponse, Invocation

Handler = Callable[[dict[str, Any], LambdaContext], Any]


@lru_cache(maxsize=1)
def logger() -> Logger:
    """A logger that cuts the URLs in every field of its lines."""
    return Logger(json_serializer=lambda line: json.dumps(redacted_json(line), separators=(",", ":")))


@lru_cache(maxsize=1)
def metrics() -> Metrics:
    """Metrics with the dimension `service`, and inside a handler with `stage`. Powertools gives the metric ColdStart
    the name of the function instead, which contains the name of the stack."""
    return Metrics()


@lru_cache(maxsize=1)
def tracer() -> Tracer:
    # Does not patch botocore: 64 conditional writes per bundle would add 64 subsegments without information.
    return Tracer(auto_patch=False)


def observed(process: Handler) -> Handler:
    """Decorates a handler: adds the Lambda context to its log lines, publishes its metrics and records its trace."""

    @lru_cache(maxsize=1)
    def instrumented() -> Handler:
        # A call that finishes no job has no metrics; this is not worth a warning.
        warnings.filterwarnings("ignore", message="No application metrics to publish")
        metrics().set_default_dimensions(stage=settings().stage)
        inner = logger().inject_lambda_context(process)
        counted: Handler = metrics().log_metrics(inner, capture_cold_start_metric=True)
        traced: Handler = tracer().capture_lambda_handler(counted, capture_response=False)
        return traced

    @wraps(process)
    def handler(event: dict[str, Any], context: LambdaContext) -> Any:
        return instrumented()(event, context)

    return handler


class CountedEndpoint:
    """Counts the requests that the interactive endpoint refuses in the metric CutoutsRefused: it is throttled, or its
    container has a full queue. SageMaker has no metric of throttled requests. A starting endpoint does not count."""

    def __init__(self, endpoint: Interactive, metrics: Metrics) -> None:
        self._endpoint, self._metrics = endpoint, metrics

    def cut_out(self, image: bytes, invocation: Invocation) -> ImageResponse:
        with self._counted():
            return self._endpoint.cut_out(image, invocation)

    def segment_box(self, request: bytes) -> bytes:
        with self._counted():
            return self._endpoint.segment_box(request)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except EndpointStarting:
            raise
        except Unavailable:
            self._metrics.add_metric("CutoutsRefused", MetricUnit.Count, 1)
            raise


JOB_METRICS: dict[State, str] = {"done": "JobsDone", "failed": "JobsFailed"}
"""The metric that counts the jobs of each final state."""


ERROR_METRICS = {"gave_up": "JobsGivenUp", "spending_cap_reached": "SpendingCapsReached"}
"""The metric that counts the jobs with an error, by its code."""


class CountedEvents:
    """Publishes events, counts them in JOB_METRICS and ERROR_METRICS, and logs each failure."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events, self._metrics = events, metrics

    def publish(self, jobs: Sequence[Job]) -> None:
        self._events.publish(jobs)
        counts = Counter(JOB_METRICS[job.state] for job in jobs)
        for name, count in counts.items():
            self._metrics.add_metric(name, MetricUnit.Count, count)
        if jobs:
            logger().info("jobs finished", extra={"trace_ids": [job.trace_id for job in jobs]})
        for job in jobs:
            if job.error:
                fields = {"job_id": job.id, "trace_id": job.trace_id, "source": job.source.key, "code": job.error.code}
                logger().info("job failed", extra=fields)
                if metric := ERROR_METRICS.get(job.error.code):
                    self._metrics.add_metric(metric, MetricUnit.Count, 1)


class CountedSubmissions:
    """Counts the bundles that the asynchronous endpoint refuses in the metric SubmissionsRefused, and logs the reason:
    it does not exist, or is throttled."""

    def __init__(self, endpoint: Endpoint, metrics: Metrics) -> None:
        self._endpoint, self._metrics = endpoint, metrics

    def submit(self, bundle_id: str, input_uri: str) -> None:
        try:
            self._endpoint.submit(bundle_id, input_uri)
        except Unavailable as error:
            self._metrics.add_metric("SubmissionsRefused", MetricUnit.Count, 1)
            logger().warning("bundle refused", extra={"bundle": bundle_id, "code": error.code, "why": error.message})
            raise


class CountedEditor:
    """Counts generated images in the metric ImagesGenerated and failed calls in EditsFailed, and logs the reason of
    each failure. A text or image that is refused does not count as a failure."""

    def __init__(self, editor: Editor, metrics: Metrics) -> None:
        self._editor, self._metrics = editor, metrics
        self.usd_per_image = editor.usd_per_image

    def check(self, prompt: str, change: Change = "background") -> None:
        self._editor.check(prompt, change)

    def edit(self, request: EditRequest) -> EditedImage:
        try:
            image = self._editor.edit(request)
        except MaskdropError as error:
            if not isinstance(error, InputError):
                self._metrics.add_metric("EditsFailed", MetricUnit.Count, 1)
            logger().warning("edit failed", extra={"code": error.code, "why": error.message})
            raise
        self._metrics.add_metric("ImagesGenerated", MetricUnit.Count, 1)
        return image
