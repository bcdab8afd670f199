"""What wakes an operator, and whom it reaches."""

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
from infra.parts import Parts

FIVE_MINUTES = Duration.minutes(5)


class Alarms(Construct):
    """Each says what happened and needs a person; what a retry cures rings no bell."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        parts: Parts,
        functions: list[Function],
        api: Api,
        topic_key: kms.Key,
    ) -> None:
        super().__init__(scope, construct_id)
        self.all: list[cloudwatch.Alarm] = []
        self.topic = sns.Topic(self, "Topic", master_key=topic_key, enforce_ssl=True)
        # A topic with a policy of its own is closed to CloudWatch, and so is its key.
        cloudwatch_itself = iam.ServicePrincipal("cloudwatch.amazonaws.com")
        topic_key.grant_encrypt_decrypt(cloudwatch_itself)
        self.topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsTold",
                actions=["sns:Publish"],
                principals=[cloudwatch_itself],
                resources=[self.topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}},
            )
        )
        if parts.stage.mail:
            self.topic.add_subscription(subscriptions.EmailSubscription(parts.stage.mail))
            acknowledge(self.topic, "Serverless-SNSRedrivePolicy", "A mail that is not delivered: alarms stay visible.")

        for metric, why in (
            ("JobsGivenUp", "Jobs failed after every attempt: a part of ours is out of order."),
            ("UnreadableMessages", "A dead letter could not be read. Its text is in the log of dead_letters."),
        ):
            self._alarm(metric, why, total(metric, functions), threshold=1)
        for queue in parts.queues.dead_letters:
            self._alarm(
                f"{queue.node.id}Age",
                "Dead letters have waited an hour: dead_letters does not keep up or fails.",
                queue.metric_approximate_age_of_oldest_message(statistic="Maximum", period=FIVE_MINUTES),
                threshold=3600,
            )
        self._alarm(
            "IntakeAge",
            "Photos have waited 30 minutes to be submitted.",
            parts.queues.intake.metric_approximate_age_of_oldest_message(statistic="Maximum", period=FIVE_MINUTES),
            threshold=1800,
        )
        for function in functions:
            self._alarm(
                f"{function.node.id}Errors",
                f"{function.name} fails.",
                function.function.metric_errors(statistic="Sum", period=FIVE_MINUTES),
                threshold=3,
            )
            self._alarm(
                f"{function.node.id}Throttles",
                f"{function.name} is held back: the account's concurrency is used up.",
                function.function.metric_throttles(statistic="Sum", period=FIVE_MINUTES),
                threshold=1,
                periods=3,
            )
        self._alarm(
            "NoCapacity",
            "Bundles have waited 30 minutes and no instance came: most often the quota or the capacity of AWS.",
            parts.bulk.metric("HasBacklogWithoutCapacity", statistic="Minimum").with_(period=FIVE_MINUTES),
            threshold=1,
            periods=6,
        )
        if parts.interactive:
            self._alarm(
                "InteractiveFaults",
                "The interactive endpoint fails: its container dies, or SageMaker cannot start it.",
                parts.interactive.metric("Invocation5XXErrors", statistic="Sum", of_variant=True).with_(
                    period=FIVE_MINUTES
                ),
                threshold=3,
            )
        self._alarm(
            "ApiFaults",
            "The API answers with 5xx.",
            api.rest.metric_server_error(statistic="Sum", period=FIVE_MINUTES),
            threshold=3,
        )

    def _alarm(self, name: str, why: str, metric: cloudwatch.IMetric, *, threshold: float, periods: int = 1) -> None:
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_description=why,
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=periods,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        alarm.add_alarm_action(actions.SnsAction(self.topic))
        self.all.append(alarm)


def total(metric: str, functions: list[Function]) -> cloudwatch.MathExpression:
    """One of our own metrics, summed over the functions that send it."""
    parts = {
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
        expression=" + ".join(f"FILL({name}, 0)" for name in parts),
        using_metrics=parts,
        label=metric,
        period=FIVE_MINUTES,
    )
