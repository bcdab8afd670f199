"""CloudWatch alarms and the SNS topic that they notify."""

from __future__ import annotations

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infra.api import Api
from infra.function import Function
from infra.nag import acknowledge
from infra.shared import SharedResources

FIVE_MINUTES = Duration.minutes(5)


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
        if shared.stage.mail:
            self.topic.add_subscription(subscriptions.EmailSubscription(shared.stage.mail))
            acknowledge(
                self.topic,
                "Serverless-SNSRedrivePolicy",
                "Undelivered e-mail is not retried: alarms stay visible in CloudWatch.",
            )

        for metric, description in (
            ("JobsGivenUp", "Jobs failed after the maximum number of attempts: a component of Maskdrop fails."),
            (
                "UnreadableMessages",
                "A message in a dead-letter queue cannot be parsed. The log of dead_letters contains its body.",
            ),
        ):
            self._alarm(metric, description, sum_over_functions(metric, functions), threshold=1)
        for queue in shared.queues.dead_letters:
            self._alarm(
                f"{queue.node.id}Age",
                "Messages have been in a dead-letter queue for an hour: dead_letters fails or is too slow.",
                queue.metric_approximate_age_of_oldest_message(statistic="Maximum", period=FIVE_MINUTES),
                threshold=3600,
            )
        self._alarm(
            "IntakeAge",
            "Photos have been queued for 30 minutes without being submitted.",
            shared.queues.intake.metric_approximate_age_of_oldest_message(statistic="Maximum", period=FIVE_MINUTES),
            threshold=1800,
        )
        for function in functions:
            self._alarm(
                f"{function.node.id}Errors",
                f"The function {function.name} fails: 3 errors in 5 minutes. Read its log.",
                function.function.metric_errors(statistic="Sum", period=FIVE_MINUTES),
                threshold=3,
            )
            self._alarm(
                f"{function.node.id}Throttles",
                f"The function {function.name} is throttled: the account's Lambda concurrency is exhausted.",
                function.function.metric_throttles(statistic="Sum", period=FIVE_MINUTES),
                threshold=1,
                periods=3,
            )
        self._alarm(
            "NoCapacity",
            "Bundles have been queued for 30 minutes and no instance started. Usual causes: quota or AWS capacity.",
            shared.bulk.metric("HasBacklogWithoutCapacity", statistic="Minimum").with_(period=FIVE_MINUTES),
            threshold=1,
            periods=6,
        )
        if shared.interactive:
            self._alarm(
                "InteractiveFaults",
                "The interactive endpoint fails: its container crashes, or SageMaker cannot start it.",
                shared.interactive.metric("Invocation5XXErrors", statistic="Sum", of_variant=True).with_(
                    period=FIVE_MINUTES
                ),
                threshold=3,
            )
        self._alarm(
            "ApiFaults",
            "The API returns 5xx responses.",
            api.rest.metric_server_error(statistic="Sum", period=FIVE_MINUTES),
            threshold=3,
        )

    def _alarm(
        self, name: str, description: str, metric: cloudwatch.IMetric, *, threshold: float, periods: int = 1
    ) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_description=description,
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        self.all.append(alarm)


def sum_over_functions(metric: str, functions: list[Function]) -> cloudwatch.MathExpression:
    """Sums a metric of the namespace Maskdrop over the functions that send it."""
    metrics = {
        f"{metric.lower()}_{function.name}": cloudwatch.Metric(
            namespace="Maskdrop",
            metric_name=metric,
            dimensions_map={"service": function.service},
            statistic="Sum",
            period=FIVE_MINUTES,
        )
        for function in functions
    }
    return cloudwatch.MathExpression(
        expression=" + ".join(f"FILL({name}, 0)" for name in metrics),
        using_metrics=metrics,
        label=metric,
        period=FIVE_MINUTES,
    )
