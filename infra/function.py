"""One function of ours: its code, its log group, its role with no more than it is allowed, its environment."""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from constructs import Construct

from infra.nag import acknowledge, acknowledge_wildcard
from infra.parts import Parts


class Function(Construct):
    """Runs `lambdas.<name>.handler`.

    memory_mb: 1,769 MB are one processor; a function that waits on the network needs a fraction of it.
    timeout_s: in seconds; the visibility of the queue that it consumes is six times that.
    """

    def __init__(
        self, scope: Construct, construct_id: str, *, name: str, parts: Parts, memory_mb: int, timeout_s: int
    ) -> None:
        super().__init__(scope, construct_id)
        self.name = name
        self.service = f"maskdrop-{name}"
        log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/maskdrop/{parts.stage.name}/{name}",
            retention=parts.stage.keep_logs,
            removal_policy=RemovalPolicy.DESTROY,
        )
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        self.function = lambda_.Function(
            self,
            "Function",
            architecture=lambda_.Architecture.ARM_64,
            code=parts.code,
            environment={
                **parts.settings.to_env(),
                "POWERTOOLS_SERVICE_NAME": self.service,
                "POWERTOOLS_METRICS_NAMESPACE": "Maskdrop",
                "POWERTOOLS_LOG_LEVEL": "INFO",
            },
            handler=f"lambdas.{name}.handler",
            log_group=log_group,
            logging_format=lambda_.LoggingFormat.JSON,
            memory_size=memory_mb,
            role=self.role,
            runtime=lambda_.Runtime.PYTHON_3_14,
            timeout=Duration.seconds(timeout_s),
            tracing=lambda_.Tracing.ACTIVE,
        )
        self.allow("logs:CreateLogStream", "logs:PutLogEvents", on=log_group.log_group_arn)
        acknowledge_wildcard(self, "*", "X-Ray has no resources: a trace is sent to the account.")
        for rule in ("LambdaDLQ", "LambdaAsyncFailureDestination"):
            acknowledge(
                self,
                f"Serverless-{rule}",
                "It is called by queues, which have dead-letter queues, by API Gateway, which waits for the answer, or "
                "by a schedule, which calls again.",
            )
        acknowledge(
            self,
            "Serverless-LambdaEventSourceMappingDestination",
            "A failed message returns to its queue and ends in the dead-letter queue beside it.",
        )
        acknowledge(
            self, "Serverless-LambdaLatestVersion", "The newest version is the one that is meant: it is deployed whole."
        )

    def allow(self, *actions: str, on: str) -> None:
        self.role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=[on]))

    def allow_objects(self, *actions: str, on: str) -> None:
        """`on`: the ARN of the objects under one prefix, ending in "*"."""
        self.allow(*actions, on=on)
        acknowledge_wildcard(self, on, "The objects under one prefix: their names come with the work.")
