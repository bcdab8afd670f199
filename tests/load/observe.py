"""What the stack does under load: messages in queues, bundles in the endpoint, its instances, throttled functions.

The local stack is sampled while the load runs. CloudWatch publishes the same of a stack in an account, with a delay of
one to three minutes: it is read once, after the load.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2

from tests.load.target import Target

LOCAL_S = 1.0
"""Interval between two samples of the local stack, in seconds."""

PERIOD_S = 60
"""Period of CloudWatch's metrics of SageMaker, SQS and Lambda, in seconds."""

CLOUDWATCH_DELAY_S = 180
"""Seconds after the load until CloudWatch has all its metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One point in time. None: not known.

    at: Unix time in seconds. queued: messages in the queue of jobs. results: in the queue of results. backlog: bundles
    in the endpoint, queued or processed. desired, ready: instances. throttles: throttled invocations of functions.
    """

    at: float
    queued: float | None = None
    results: float | None = None
    backlog: float | None = None
    desired: float | None = None
    ready: float | None = None
    throttles: float | None = None

    def to_row(self) -> dict[str, Any]:
        return asdict(self)


class LocalStack:
    """Reads one sample of the local stack."""

    def __init__(self, target: Target, http: httpx2.Client) -> None:
        self._target, self._http, self._sqs = target, http, target.client("sqs")

    def sample(self) -> Sample:
        reported = self._http.get(f"{self._target.sagemaker_url}/instances").json()["endpoints"]
        bulk: Mapping[str, Any] = reported.get(self._target.endpoint, {})
        return Sample(
            at=time.time(),
            queued=self._messages(self._target.jobs_queue_url),
            results=self._messages(self._target.results_queue_url),
            backlog=bulk.get("backlog", 0),
            desired=bulk.get("desired"),
            ready=bulk.get("ready"),
        )

    def _messages(self, url: str) -> float:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self._sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return float(sum(int(attributes[name]) for name in names))

    def simulate(self, **conditions: Any) -> None:
        """Changes the conditions of the SageMaker emulator (local.sagemaker.Conditions)."""
        self._http.post(f"{self._target.sagemaker_url}/control", json=conditions).raise_for_status()


def queries(target: Target) -> list[dict[str, Any]]:
    """Returns the queries of GetMetricData. Their ids are the fields of Sample."""

    def metric(name: str, namespace: str, statistic: str, **dimensions: str) -> dict[str, Any]:
        listed = [{"Name": key, "Value": value} for key, value in dimensions.items()]
        described = {"Namespace": namespace, "MetricName": name, "Dimensions": listed}
        return {"MetricStat": {"Metric": described, "Period": PERIOD_S, "Stat": statistic}}

    def queue(url: str) -> dict[str, Any]:
        visible = "ApproximateNumberOfMessagesVisible"
        return metric(visible, "AWS/SQS", "Maximum", QueueName=url.rpartition("/")[2])

    endpoint = {"EndpointName": target.endpoint}
    search = f'{{AWS/Lambda,FunctionName}} MetricName="Throttles" "Maskdrop-{target.stage}"'
    return [
        {"Id": "queued", **queue(target.jobs_queue_url)},
        {"Id": "results", **queue(target.results_queue_url)},
        {"Id": "backlog", **metric("ApproximateBacklogSize", "AWS/SageMaker", "Maximum", **endpoint)},
        # Every instance publishes one sample a minute: their number is the number of instances (developer guide,
        # "Troubleshooting" of asynchronous inference).
        {
            "Id": "ready",
            **metric("CPUUtilization", "/aws/sagemaker/Endpoints", "SampleCount", **endpoint, VariantName="main"),
        },
        {"Id": "throttles", "Expression": f"SUM(SEARCH('{search}', 'Sum', {PERIOD_S}))"},
    ]


def from_cloudwatch(cloudwatch: Any, target: Target, begin: datetime, end: datetime) -> list[Sample]:
    """Returns one sample a minute. An absent metric of instances is 0 instances; other absent metrics are 0, too, as
    CloudWatch has no datapoints of an idle queue."""
    values: dict[float, dict[str, float]] = {}
    names = [query["Id"] for query in queries(target)]
    token: dict[str, str] = {}
    while True:
        page = cloudwatch.get_metric_data(MetricDataQueries=queries(target), StartTime=begin, EndTime=end, **token)
        for result in page["MetricDataResults"]:
            for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                values.setdefault(at.timestamp(), {})[result["Id"]] = value
        if not page.get("NextToken"):
            break
        token = {"NextToken": page["NextToken"]}
    first = begin.timestamp() // PERIOD_S * PERIOD_S
    minutes = [first + PERIOD_S * index for index in range(int((end.timestamp() - first) // PERIOD_S) + 1)]
    return [Sample(at=at, **{name: values.get(at, {}).get(name, 0.0) for name in names}) for at in minutes]


def cost_usd(samples: list[Sample], usd_per_hour: float) -> float:
    """Returns the price of the instances that the samples show, in US dollars."""
    pairs = itertools.pairwise(samples)
    return sum((later.at - one.at) / 3600 * (one.ready or 0) * usd_per_hour for one, later in pairs)


def after_load(
    target: Target, begin: datetime, *, sleep: Callable[[float], None] = time.sleep, cloudwatch: Any = None
) -> list[Sample]:
    """Waits for CloudWatch and returns the samples of a stack in an account since `begin`."""
    end = datetime.now(UTC)
    sleep(CLOUDWATCH_DELAY_S)
    return from_cloudwatch(cloudwatch or target.client("cloudwatch"), target, begin, end)
