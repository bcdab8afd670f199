"""Samples of a stack in an account, from a stubbed CloudWatch."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import botocore.session
import pytest
from botocore.stub import ANY, Stubber

from tests.load.observe import Sample, cost_usd, from_cloudwatch, queries
from tests.load.target import Target

BEGIN = datetime(2026, 11, 30, 1, 0, 20, tzinfo=UTC)

TARGET = Target(
    region="eu-west-1",
    inbox="inbox",
    api_url="https://api.example/prod",
    api_key="k",
    stage="prod",
    endpoint="maskdrop-prod-bulk-g6-xlarge",
    jobs_queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
    results_queue_url="https://sqs.eu-west-1.amazonaws.com/123456789012/results",
)


def at(minute: int) -> datetime:
    return BEGIN.replace(second=0) + timedelta(minutes=minute)


def test_the_metrics_of_cloudwatch_become_one_sample_a_minute() -> None:
    cloudwatch = botocore.session.get_session().create_client(
        "cloudwatch", region_name="eu-west-1", aws_access_key_id="a", aws_secret_access_key="b"
    )
    expected = {"MetricDataQueries": queries(TARGET), "StartTime": BEGIN, "EndTime": ANY}

    def page(*results: tuple[str, dict[int, float]], **more: str) -> dict[str, Any]:
        listed = [
            {"Id": name, "Timestamps": [at(minute) for minute in values], "Values": [*values.values()]}
            for name, values in results
        ]
        return {"MetricDataResults": listed, **more}

    with Stubber(cloudwatch) as stub:
        stub.add_response(
            "get_metric_data", page(("queued", {0: 40.0, 1: 3.0}), ("backlog", {1: 9.0}), NextToken="n"), expected
        )
        stub.add_response(
            "get_metric_data",
            page(("ready", {1: 1.0, 2: 4.0}), ("throttles", {2: 7.0})),
            {**expected, "NextToken": "n"},
        )
        samples = from_cloudwatch(cloudwatch, TARGET, BEGIN, BEGIN + timedelta(minutes=2))
        stub.assert_no_pending_responses()
    rows = [(one.queued, one.results, one.backlog, one.ready, one.throttles) for one in samples]
    assert rows == [(40, 0, 0, 0, 0), (3, 0, 9, 1, 0), (0, 0, 0, 4, 7)]
    assert [one.at for one in samples] == [at(minute).timestamp() for minute in range(3)]


def test_the_queries_name_the_queues_the_endpoint_and_the_functions_of_the_stage() -> None:
    by_id = {query["Id"]: query for query in queries(TARGET)}
    assert by_id.keys() < set(Sample.__dataclass_fields__)
    dimensions = by_id["ready"]["MetricStat"]["Metric"]["Dimensions"]
    assert {"Name": "EndpointName", "Value": TARGET.endpoint} in dimensions
    assert by_id["queued"]["MetricStat"]["Metric"]["Dimensions"] == [{"Name": "QueueName", "Value": "jobs"}]
    assert "Maskdrop-prod" in by_id["throttles"]["Expression"]


def test_the_cost_is_the_time_of_the_instances_by_their_price() -> None:
    samples = [Sample(at=1800.0 * half_hour, ready=ready) for half_hour, ready in enumerate((0, 2, 4, 1))]
    assert cost_usd(samples, usd_per_hour=2) == pytest.approx((0 + 2 + 4) / 2 * 2)
