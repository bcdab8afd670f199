"""Base construct of the Lambda functions: code, log group, environment and a least-privilege role."""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.nag import acknowledge, acknowledge_wildcard
from infra.network import LAMBDA_INTERFACES
from infra.retention import log_group
from infra.shared import SharedResources


def service(name: str) -> str:
    """The value of the dimension `service` in the metrics of a function, and of `service` in its logs."""
    return f"maskdrop-{name}"


class Function(Construct):
    """A function that runs `lambdas.<name>.handler`.

    memory_mb: memory in MB. 1,769 MB correspond to one vCPU; a function that waits for the network needs less.
    timeout_s: timeout in seconds. The visibility timeout of the queue that it consumes is at least six times that.
    in_vpc: whether it runs in the VPC of a stage that has one, where it reaches only the services in infra/network.py.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        name: str,
        shared: SharedResources,
        memory_mb: int,
        timeout_s: int,
        in_vpc: bool = False,
    ) -> None:
        super().__init__(scope, construct_id)
        self.name = name
        logs = log_group(self, "Logs", stage=shared.stage, name=f"/maskdrop/{shared.stage.name}/{name}")
        self.role = iam.Role(self, "Role", assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"))
        network = shared.network if in_vpc else None
        if network:
            self.allow(*LAMBDA_INTERFACES, on="*")
        self.function = lambda_.Function(
            self,
            "Function",
            architecture=lambda_.Architecture.ARM_64,
            code=shared.code,
            environment={
                **shared.settings.to_env(),
                "POWERTOOLS_SERVICE_NAME": service(name),
                "POWERTOOLS_METRICS_NAMESPACE": "Maskdrop",
                "POWERTOOLS_LOG_LEVEL": "INFO",
            },
            handler=f"lambdas.{name}.handler",
            log_group=logs,
            logging_format=lambda_.LoggingFormat.JSON,
            memory_size=memory_mb,
            reserved_concurrent_executions=shared.stage.reserved.get(name),
            role=self.role,
            runtime=lambda_.Runtime.PYTHON_3_14,
            timeout=Duration.seconds(timeout_s),
            tracing=lambda_.Tracing.ACTIVE,
            vpc=network.vpc if network else None,
            security_groups=[network.functions] if network else None,
        )
        self.allow("logs:CreateLogStream", "logs:PutLogEvents", on=logs.log_group_arn)
        acknowledge_wildcard(self, "*", "X-Ray and network interfaces have no resource-level permissions.")
        for rule in ("LambdaDLQ", "LambdaAsyncFailureDestination"):
            acknowledge(
                self,
                f"Serverless-{rule}",
                "Invoked by queues with dead-letter queues, synchronously by API Gateway, or by a recurring schedule.",
            )
        acknowledge(
            self,
            "Serverless-LambdaEventSourceMappingDestination",
            "A failed message returns to its queue; after the maximum number of receives, to its dead-letter queue.",
        )
        acknowledge(
            self, "Serverless-LambdaLatestVersion", "All functions are deployed together, at their latest version."
        )

    def run_every(self, minutes: int) -> None:
        """Invokes the function on a schedule. A failed invocation is not retried: the next one finds the same work."""
        # Lambda would retry it twice, beside the next scheduled one.
        self.function.configure_async_invoke(retry_attempts=0, max_event_age=Duration.minutes(minutes))
        schedule = events.Rule(
            self,
            "Schedule",
            schedule=events.Schedule.rate(Duration.minutes(minutes)),
            targets=[targets.LambdaFunction(self.function, retry_attempts=0)],
        )
        acknowledge(schedule, "Serverless-EventBusDLQ", "A failed invocation loses no data: the next one repeats it.")

    def allow(self, *actions: str, on: str) -> None:
        """Allows actions on one resource. `on`: its ARN."""
        self.role.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=[on]))

    def allow_objects(self, *actions: str, on: str) -> None:
        """Allows actions on the objects under one prefix. `on`: their ARN, which ends in "*"."""
        self.allow(*actions, on=on)
        acknowledge_wildcard(self, on, "Objects under one prefix: their keys are known only at run time.")
