"""One page: what comes in, what comes out, what waits, what fails."""

from __future__ import annotations

from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infra.alarms import FIVE_MINUTES, Alarms, total
from infra.api import Api
from infra.function import Function
from infra.parts import Parts


class Dashboard(Construct):
    def __init__(
        self, scope: Construct, construct_id: str, *, parts: Parts, functions: list[Function], api: Api, alarms: Alarms
    ) -> None:
        super().__init__(scope, construct_id)
        board = cloudwatch.Dashboard(self, "Board", dashboard_name=f"maskdrop-{parts.stage.name}")
        board.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=alarms.all, width=24, height=4))
        board.add_widgets(
            _graph("Pictures", *(total(name, functions) for name in ("JobsDone", "JobsFailed", "JobsGivenUp"))),
            _graph(
                "Waiting in queues",
                *(
                    queue.metric_approximate_number_of_messages_visible(label=queue.node.id)
                    for queue in parts.queues.all
                ),
            ),
            _graph(
                "Dead letters",
                *(
                    queue.metric_approximate_number_of_messages_visible(label=queue.node.id)
                    for queue in parts.queues.dead_letters
                ),
            ),
        )
        board.add_widgets(
            _graph("Bundles in the endpoint", parts.bulk.metric("ApproximateBacklogSize", statistic="Maximum")),
            _graph("Bundles per instance", parts.bulk.metric("ApproximateBacklogSizePerInstance")),
            _graph("Failed bundles", parts.bulk.metric("InvocationFailures", statistic="Sum")),
        )
        if interactive := parts.interactive:
            board.add_widgets(
                _graph("Images now", interactive.metric("Invocations", statistic="Sum", of_variant=True)),
                _graph("Work on one, p95, µs", interactive.metric("ModelLatency", statistic="p95", of_variant=True)),
                _graph(
                    "Waiting for a start, p95, µs",
                    interactive.metric("OverheadLatency", statistic="p95", of_variant=True),
                ),
            )
        board.add_widgets(
            _graph("Errors", *(one.function.metric_errors(label=one.name) for one in functions)),
            _graph(
                "Duration, p95", *(one.function.metric_duration(label=one.name, statistic="p95") for one in functions)
            ),
            _graph(
                "API",
                api.rest.metric_count(label="requests"),
                api.rest.metric_client_error(label="4xx"),
                api.rest.metric_server_error(label="5xx"),
            ),
        )


def _graph(title: str, *metrics: cloudwatch.IMetric) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=list(metrics), period=FIVE_MINUTES, width=8)
