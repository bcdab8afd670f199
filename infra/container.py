"""Base construct of the SageMaker endpoints: the container's log group, IAM role and model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.nag import acknowledge_wildcard
from infra.stages import Stage

VARIANT = "main"

AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
"""Driver 580 with CUDA 13.0. On the default AMI, a CUDA 13 image fails with CannotStartContainerError and no log."""

STARTUP_S = 600
"""Seconds that a container may take to become ready on a GPU."""


class Endpoint(Construct):
    """The endpoint `maskdrop-<stage>-<purpose>`."""

    def __init__(self, scope: Construct, construct_id: str, *, purpose: str, stage: Stage) -> None:
        super().__init__(scope, construct_id)
        self.name = f"maskdrop-{stage.name}-{purpose}"
        self.arn = f"arn:{Aws.PARTITION}:sagemaker:{Aws.REGION}:{Aws.ACCOUNT_ID}:endpoint/{self.name}"
        self._purpose = purpose
        self._repository = f"maskdrop-{stage.name}"
        self._log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/sagemaker/Endpoints/{self.name}",
            retention=stage.keep_logs,
            removal_policy=RemovalPolicy.DESTROY,
        )

    def metric(self, name: str, *, statistic: str = "Average", of_variant: bool = False) -> cloudwatch.Metric:
        """Returns a SageMaker metric of this endpoint, with a period of 1 minute."""
        return cloudwatch.Metric(
            namespace="AWS/SageMaker",
            metric_name=name,
            dimensions_map={"EndpointName": self.name, **({"VariantName": VARIANT} if of_variant else {})},
            statistic=statistic,
            period=Duration.minutes(1),
        )

    def _role(self, statements: Sequence[iam.PolicyStatement], *, objects: Sequence[str]) -> iam.Role:
        """Creates the execution role: `statements`, and the permissions that every container needs.

        objects: the ARNs in `statements` that end in "*".
        """
        repository = f"arn:{Aws.PARTITION}:ecr:{Aws.REGION}:{Aws.ACCOUNT_ID}:repository/{self._repository}"
        # Inline policies exist before the model that needs them.
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            inline_policies={
                self._purpose: iam.PolicyDocument(
                    statements=[
                        *statements,
                        iam.PolicyStatement(
                            actions=[
                                "ecr:BatchCheckLayerAvailability",
                                "ecr:BatchGetImage",
                                "ecr:GetDownloadUrlForLayer",
                            ],
                            resources=[repository],
                        ),
                        iam.PolicyStatement(
                            actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                            resources=[self._log_group.log_group_arn],
                        ),
                        iam.PolicyStatement(actions=["ecr:GetAuthorizationToken"], resources=["*"]),
                        iam.PolicyStatement(
                            actions=["cloudwatch:PutMetricData"],
                            resources=["*"],
                            conditions={"StringLike": {"cloudwatch:namespace": ["AWS/SageMaker", "/aws/sagemaker/*"]}},
                        ),
                    ]
                )
            },
        )
        for one in objects:
            acknowledge_wildcard(role, one, "Objects under one prefix: the endpoint reads or writes all of them.")
        acknowledge_wildcard(
            role, "*", "GetAuthorizationToken and PutMetricData have no resources; metrics are limited by namespace."
        )
        return role

    def _model(
        self, role: iam.Role, *, image_tag: str, weights: str | None, environment: Mapping[str, str]
    ) -> sagemaker.CfnModel:
        """Creates the model.

        weights: s3://bucket/prefix/; None: the weights in the image.
        environment: further environment variables of the model server.
        """
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}/{self._repository}:{image_tag}",
                environment={
                    "MODEL_HOST": "0.0.0.0",  # noqa: S104  SageMaker reaches the container from outside
                    "MODEL_PORT": "8080",
                    "MODEL_WEIGHTS_DIR": "/opt/ml/model" if weights else "/opt/maskdrop/weights",
                    **environment,
                },
                model_data_source=_uncompressed(weights) if weights else None,
            ),
        )
        model.node.add_dependency(role)
        return model

    def _endpoint(self, config: sagemaker.CfnEndpointConfig) -> sagemaker.CfnEndpoint:
        endpoint = sagemaker.CfnEndpoint(
            self, "Endpoint", endpoint_name=self.name, endpoint_config_name=config.attr_endpoint_config_name
        )
        endpoint.node.add_dependency(self._log_group)
        return endpoint

    def _instances(self, endpoint: sagemaker.CfnEndpoint, minimum: int, maximum: int) -> scaling.CfnScalableTarget:
        """Registers the instance count of the endpoint as a scalable target."""
        target = scaling.CfnScalableTarget(
            self,
            "Instances",
            min_capacity=minimum,
            max_capacity=maximum,
            resource_id=f"endpoint/{self.name}/variant/{VARIANT}",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            service_namespace="sagemaker",
        )
        target.node.add_dependency(endpoint)
        return target


def gpu_environment(stage: Stage) -> dict[str, str]:
    """Environment of a model server on a GPU instance. It must not fall back to the CPU, which costs the same."""
    return {"MODEL_REQUIRE_GPU": "1", "MODEL_USD_PER_HOUR": str(stage.usd_per_hour)}


def weights_arns(weights: str | None) -> tuple[list[str], list[str]]:
    """Returns the ARNs of the bucket and of the objects of custom weights; two empty lists without them."""
    if not weights:
        return [], []
    bucket, _, prefix = weights.removeprefix("s3://").partition("/")
    return [f"arn:{Aws.PARTITION}:s3:::{bucket}"], [f"arn:{Aws.PARTITION}:s3:::{bucket}/{prefix}*"]


def _uncompressed(weights: str) -> sagemaker.CfnModel.ModelDataSourceProperty:
    """Reads the files under the prefix uncompressed: an archive saves little and costs time at every start."""
    return sagemaker.CfnModel.ModelDataSourceProperty(
        s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
            s3_uri=weights, s3_data_type="S3Prefix", compression_type="None"
        )
    )
