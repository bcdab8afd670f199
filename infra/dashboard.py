"""The CloudWatch dashboard: jobs, queues, endpoints, functions, API and alarms."""

from __future__ import annotations

from aws_cdk import Aws
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.alarms import FIVE_MINUTES, Alarms, sum_over_functions
from infra.api import Api
from infra.function import Function
from infra.shared import SharedResources


class Dashboard(Construct):
    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        shared: SharedResources,
        functions: list[Function],
        api: Api,
        alarms: Alarms,
    ) -> None:
        super().__init__(scope, construct_id)
        # Dashboards belong to the account, not to a Region.
        name = f"maskdrop-{shared.stage.name}-{Aws.REGION}"
        board = cloudwatch.Dashboard(self, "Board", dashboard_name=name)
        board.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms.all, width=24, height=4))
        board.add_widgets(
            _graph(
                "Images",
                *(sum_over_functions(name, shared.stage.name) for name in ("JobsDone", "JobsFailed", "JobsGivenUp")),
            ),
            _graph(
                "Queued messages",
                *(
                    queue.metric_approximate_number_of_messages_visible(label=queue.node.id)
                    for queue in shared.queues.all
                ),
            ),
            _graph(
                "Age of the oldest message, s",
                *(
                    queue.metric_approximate_age_of_oldest_message(label=queue.node.id, statistic="Maximum")
                    for queue in (*shared.queues.all, shared.queues.dead)
                ),
            ),
            _graph(
                "Dead letters",
                shared.queues.dead.metric_approximate_number_of_messages_visible(label="messages"),
                sum_over_functions("WebhooksGivenUp", shared.stage.name),
                sum_over_functions("UnreadableMessages", shared.stage.name),
            ),
        )
        board.add_widgets(*_bulk(shared))
        if shared.queues.edits:
            names = ("ImagesGenerated", "EditsFailed", "SpendingCapsReached")
            board.add_widgets(_graph("Edits", *(sum_over_functions(name, shared.stage.name) for name in names)))
        if interactive := shared.interactive:
            board.add_widgets(
                _graph("Synchronous requests", interactive.metric("Invocations", statistic="Sum", of_variant=True)),
                _graph("Model latency, p95, µs", interactive.metric("ModelLatency", statistic="p95", of_variant=True)),
                _graph(
                    "Overhead latency (cold starts), p95, µs",
                    interactive.metric("OverheadLatency", statistic="p95", of_variant=True),
                ),
            )
        board.add_widgets(
            _graph("Errors", *(one.function.metric_errors(label=one.name) for one in functions)),
            _graph(
                "Duration, p95, ms",
                *(one.function.metric_duration(label=one.name, statistic="p95") for one in functions),
            ),
            _graph(
                "API",
                api.rest.metric_count(label="requests"),
                api.rest.metric_client_error(label="4xx"),
                api.rest.metric_server_error(label="5xx"),
            ),
        )


def _bulk(shared: SharedResources) -> list[cloudwatch.IWidget]:
    metric = shared.bulk.metric
    if shared.stage.bulk == "serverless":
        return [
            _graph("Bundles", metric("Invocations", statistic="Sum", of_variant=True)),
            _graph(
                "Concurrency of bulk, share of its maximum",
                metric("ServerlessConcurrentExecutionsUtilization", statistic="Maximum", of_variant=True),
            ),
            _graph("Refused bundles", sum_over_functions("BundlesRefused", shared.stage.name)),
        ]
    return [
        _graph("Bundles queued in the endpoint", metric("ApproximateBacklogSize", statistic="Maximum")),
        _graph("Bundles per instance", metric("ApproximateBacklogSizePerInstance")),
        _graph("Failed bundles", metric("InvocationFailures", statistic="Sum", of_variant=True)),
        _graph("Refused bundles", sum_over_functions("SubmissionsRefused", shared.stage.name)),
    ]


def _graph(title: str, *metrics: cloudwatch.IMetric) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(metrics), period=FIVE_MINUTES, width=8)
