"""The endpoints as the functions, alarms and the dashboard see them: by name. Their stacks can be absent."""

from __future__ import annotations

from dataclasses import dataclass

from aws_cdk import Aws, Duration
from aws_cdk import aws_cloudwatch as cloudwatch

VARIANT = "main"


@dataclass(frozen=True, slots=True)
class EndpointName:
    """A SageMaker endpoint of this account and Region that may not exist yet."""

    name: str

    @property
    def arn(self) -> str:
        return f"arn:{Aws.PARTITION}:sagemaker:{Aws.REGION}:{Aws.ACCOUNT_ID}:endpoint/{self.name}"

    @property
    def log_group(self) -> str:
        return f"/aws/sagemaker/Endpoints/{self.name}"

    @property
    def switched_off(self) -> cloudwatch.Metric:
        """Counts log lines of the container that an optimisation or an engine is switched off."""
        name = f"SwitchedOff-{self.name}"
        return cloudwatch.Metric(namespace="Maskdrop", metric_name=name, statistic="Sum", period=Duration.minutes(5))

    def metric(self, name: str, *, statistic: str = "Average", of_variant: bool = False) -> cloudwatch.Metric:
        """Returns a SageMaker metric of this endpoint, with a period of 1 minute."""
        return cloudwatch.Metric(
            namespace="AWS/SageMaker",
            metric_name=name,
            dimensions_map={"EndpointName": self.name, **({"VariantName": VARIANT} if of_variant else {})},
            statistic=statistic,
            period=Duration.minutes(1),
        )
