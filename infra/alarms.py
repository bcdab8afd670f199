"""CloudWatch alarms and the SNS topic that they notify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Annotations, Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.api import Api
from infra.function import Function, service
from infra.jobs_table import BY_OWNER, BY_STATE
from infra.nag import acknowledge
from infra.runbooks import runbook_link
from infra.shared import SharedResources
from infra.stages import BACKLOG_S

FIVE_MINUTES = Duration.minutes(5)

METRICS: dict[str, tuple[str, ...]] = {
    "JobsDone": ("record",),
    "JobsFailed": ("ingest", "edit", "record", "sweep", "dead_letters"),
    "JobsGivenUp": ("record", "sweep", "dead_letters"),
    "UnreadableMessages": ("dead_letters",),
    "WebhooksGivenUp": ("dead_letters",),
    "CutoutsRefused": ("api",),
    "BundlesRefused": ("invoke",),
    "BundlesFailed": ("record",),
    "SubmissionsRefused": ("ingest",),
    "ImagesGenerated": ("edit",),
    "EditsFailed": ("edit",),
    "SpendingCapsReached": ("edit",),
    "BotMessagesGivenUp": ("dead_letters",),
}
"""Metrics of namespace Maskdrop, and the functions that send each of them. An alarm costs $0.10 a month for each."""

AGES_S = {
    "Jobs": 1800,
    "Results": 900,
    "Webhooks": 3600,
    "Bundles": 2 * BACKLOG_S,
    "Edits": 3600,
    "Dead": 3600,
    "Bot": 3600,
}
"""Age of the oldest message of a queue that an operator has to know, in seconds. Messages that a full endpoint returns
are new messages; a webhook that fails for the third time no longer counts. A bundle waits for up to BACKLOG_S."""


class Alarms(Construct):
    """Alarms on conditions that need an operator. Errors that retries resolve raise none."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        shared: SharedResources,
        functions: list[Function],
        api: Api,
        topic_key: kms.Key,
    ) -> None:
        super().__init__(scope, construct_id)
        stage = shared.stage
        self._stage = stage.name
        self.all: list[cloudwatch.Alarm] = []
        self.topic = sns.Topic(self, "Topic", master_key=topic_key, enforce_ssl=True)
        # A topic with a resource policy rejects CloudWatch unless the policy names it, and so does its key.
        cloudwatch_service = iam.ServicePrincipal("cloudwatch.amazonaws.com")
        of_account = {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}}
        topic_key.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowCloudWatchAlarms",
                actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                principals=[cloudwatch_service],
                resources=["*"],
                conditions=of_account,
            )
        )
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowCloudWatchAlarms",
                actions=["sns:Publish"],
                principals=[cloudwatch_service],
                resources=[self.topic.topic_arn],
                conditions=of_account,
            )
        )
        if stage.mail:
            self.topic.add_subscription(subscriptions.EmailSubscription(stage.mail))
            acknowledge(
                self.topic,
                "Serverless-SNSRedrivePolicy",
                "Undelivered e-mail is not retried: alarms stay visible in CloudWatch.",
            )

        else:
            Annotations.of(self).add_warning_v2(
                "maskdrop:NoMail",
                f"Alarms of the stage {stage.name} notify nobody: set `mail` in stages/{stage.name}.toml, or subscribe "
                "to the topic of the alarms.",
            )

        self._metric("JobsGivenUp", "Jobs failed after the last attempt: a part of the stack fails.", read="record")
        self._metric("UnreadableMessages", "A dead letter cannot be parsed; the log has its body.", read="dead_letters")
        self._metric("WebhooksGivenUp", "A receiver of webhooks failed at every attempt.", read="dead_letters")
        readers = {"Jobs": "ingest", "Results": "record", "Webhooks": "webhooks", "Bundles": "invoke", "Edits": "edit"}
        readers["Bot"] = "bot"
        for queue in (*shared.queues.all, shared.queues.dead):
            name = queue.node.id
            self._alarm(
                f"{name}Age",
                f"A message has been in the queue {name} for {AGES_S[name] // 60} minutes: the function fails, or is "
                "throttled.",
                queue.metric_approximate_age_of_oldest_message(statistic="Maximum", period=FIVE_MINUTES),
                threshold=AGES_S[name],
                read=readers.get(name, "dead_letters"),
            )
        for function in functions:
            self._alarm(
                f"{function.node.id}Errors",
                f"The function {function.name} fails: 3 errors in 5 minutes.",
                function.function.metric_errors(statistic="Sum", period=FIVE_MINUTES),
                threshold=3,
                read=function.name,
                runbook="FunctionErrors",
            )
            if function.name in ("api", "authorize"):  # the others repeat their messages, whose age has an alarm
                self._alarm(
                    f"{function.node.id}Throttles",
                    f"The function {function.name} is throttled: the Lambda concurrency of the account is used up. "
                    "Request a higher quota and set lambda_concurrency.",
                    function.function.metric_throttles(statistic="Sum", period=FIVE_MINUTES),
                    threshold=1,
                    periods=3,
                    runbook="FunctionThrottles",
                )
            if function.name == "sweep":
                self._alarm(
                    "SweepStopped",
                    "The function sweep has not run for 15 minutes: its rule is disabled, or Lambda is throttled. "
                    "Overdue jobs are not retried. Also raised before its first run after a deployment.",
                    function.function.metric_invocations(statistic="Sum", period=Duration.minutes(15)),
                    threshold=1,
                    below=True,
                    read="sweep",
                )
        self._metric(
            "BundlesFailed",
            "Bundles fail or expire for an hour; their photos are retried. Usual causes: the container crashes or "
            "rejects them, or no instance starts.",
            periods=4,
            minutes=15,  # a bundle that fails at once is retried after at most 15 minutes
            read="record",
        )
        if shared.queues.bundles:
            self._metric(
                "BundlesRefused",
                "The endpoint has refused bundles for 30 minutes; photos wait. Usual causes: the concurrency of all "
                "serverless endpoints of the account is used up, or the endpoint does not exist.",
                periods=2,
                minutes=15,  # a refused bundle is sent again after at most 15 minutes
                read="invoke",
            )
        else:
            self._metric(
                "SubmissionsRefused",
                "The endpoint has refused bundles for 30 minutes; photos wait. Usual cause: it does not exist.",
                periods=2,
                minutes=15,  # a refused photo is submitted again after at most 15 minutes
                read="ingest",
            )
            self._alarm(
                "NoCapacity",
                "Bundles have been queued for 30 minutes and no instance started; photos wait. Usual causes: quota or "
                "AWS capacity.",
                shared.bulk.metric("HasBacklogWithoutCapacity", statistic="Minimum").with_(period=FIVE_MINUTES),
                threshold=1,
                periods=6,
            )
        if shared.queues.bot:
            self._metric(
                "BotMessagesGivenUp",
                "The Telegram bot could not process an image or send a result. Usual causes: the token was revoked, or "
                "the Bot API is not reachable. Check it: maskdrop bot status.",
                read="dead_letters",
            )
        if shared.queues.edits:
            self._metric(
                "EditsFailed",
                "Calls of the editor have failed for 30 minutes. Usual causes: the quota of the model, its end of "
                "life, or no access to it.",
                periods=2,
                minutes=15,  # a failed call is repeated after at most 15 minutes
                read="edit",
            )
            self._metric(
                "SpendingCapsReached",
                "A spending cap for generated images is reached: jobs fail until next month. Raise edit_usd_per_month, "
                "or the cap of the owner.",
                read="edit",
            )
        for name, endpoint, gpu in (
            ("Bulk", shared.bulk, stage.bulk == "gpu"),
            ("Interactive", shared.interactive, stage.interactive == "realtime"),
        ):
            if gpu and endpoint:
                self._alarm(
                    f"{name}SwitchedOff",
                    "A container has switched off an optimisation or an engine whose results differ from float32: it "
                    f"is slower, or lacks the engine. Its log: aws logs tail {endpoint.log_group} --since 1h.",
                    endpoint.switched_off,
                    threshold=1,
                    runbook="SwitchedOff",
                )
        if shared.interactive:
            self._alarm(
                "InteractiveFaults",
                "The interactive endpoint fails: its container crashes, or SageMaker cannot start it. Its log: "
                f"aws logs tail {shared.interactive.log_group} --since 1h.",
                shared.interactive.metric("Invocation5XXErrors", statistic="Sum", of_variant=True).with_(
                    period=FIVE_MINUTES
                ),
                threshold=3,
            )
            self._metric(
                "CutoutsRefused",
                "The interactive endpoint refuses requests: too many at a time. Raise interactive_at_once or "
                "interactive_max_instances, and the quota.",
                threshold=3,
                read="api",
            )
        for name, table, indexes in (
            ("Jobs", shared.jobs.table, (BY_STATE, BY_OWNER)),
            ("Registry", shared.registry.table, ()),
        ):
            self._alarm(
                f"{name}TableThrottles",
                f"DynamoDB throttles the table {name}: more than 1,000 writes a second in one partition, or the "
                "table's quota.",
                _throttles(table, indexes),
                threshold=10,
                runbook="TableThrottles",
            )
        self._alarm(
            "ApiFaults",
            "The API returns 5xx responses.",
            api.rest.metric_server_error(statistic="Sum", period=FIVE_MINUTES),
            threshold=3,
            read="api",
        )

    def _metric(
        self, name: str, description: str, *, read: str, threshold: float = 1, periods: int = 1, minutes: int = 5
    ) -> None:
        """Adds an alarm on one of METRICS. minutes: length of a period."""
        metric = sum_over_functions(name, self._stage, Duration.minutes(minutes))
        self._alarm(name, description, metric, threshold=threshold, periods=periods, read=read)

    def _alarm(
        self,
        name: str,
        description: str,
        metric: cloudwatch.IMetric,
        *,
        threshold: float,
        periods: int = 1,
        below: bool = False,
        read: str = "",
        runbook: str = "",
    ) -> None:
        """Adds an alarm. below: whether values below the threshold, or none, raise it. read: function whose log names
        the cause. runbook: its section in docs/runbooks.md; by default that of its name."""
        log = f" Its log: aws logs tail /maskdrop/{self._stage}/{read} --since 1h." if read else ""
        operator = cloudwatch.ComparisonOperator
        missing = cloudwatch.TreatMissingData
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_description=f"{description}{log} {runbook_link(runbook or name)}",
            metric=metric,
            threshold=threshold,
            comparison_operator=operator.LESS_THAN_THRESHOLD if below else operator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=missing.BREACHING if below else missing.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        self.all.append(alarm)


def sum_over_functions(metric: str, stage: str, period: Duration = FIVE_MINUTES) -> cloudwatch.IMetric:
    """Sums one of METRICS over the functions that send it."""
    metrics: dict[str, cloudwatch.IMetric] = {
        f"{metric.lower()}_{function}": cloudwatch.Metric(
            namespace="Maskdrop",
            metric_name=metric,
            dimensions_map={"service": service(function), "stage": stage},
            statistic="Sum",
            period=period,
        )
        for function in METRICS[metric]
    }
    return next(iter(metrics.values())) if len(metrics) == 1 else _sum(metrics, period, label=metric)


def _throttles(table: dynamodb.Table, indexes: Sequence[str]) -> cloudwatch.IMetric:
    """Sums the throttled reads and writes of a table, and the throttled writes of its indexes, which its own metric
    does not contain."""
    own = {"reads": table.metric("ReadThrottleEvents"), "writes": table.metric("WriteThrottleEvents")}
    of_indexes = {
        index: table.metric(
            "WriteThrottleEvents",
            dimensions_map={"TableName": table.table_name, "GlobalSecondaryIndexName": index},
        )
        for index in indexes
    }
    return _sum(
        {name: one.with_(statistic="Sum", period=FIVE_MINUTES) for name, one in (own | of_indexes).items()},
        FIVE_MINUTES,
    )


def _sum(
    metrics: Mapping[str, cloudwatch.IMetric], period: Duration, label: str = "Throttled"
) -> cloudwatch.MathExpression:
    return cloudwatch.MathExpression(
        expression=" + ".join(f"FILL({name}, 0)" for name in metrics),
        using_metrics=metrics,
        label=label,
        period=period,
    )
