"""Base of the stacks of the SageMaker endpoints: the container's log group, IAM role and model, and its endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Aws, CfnWaitConditionHandle, Stack
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.encryption import key_use
from infra.endpoints import VARIANT, EndpointName
from infra.nag import acknowledge_wildcard
from infra.network import SAGEMAKER_INTERFACES, NetworkStack
from infra.retention import log_group
from infra.runbooks import runbook_link
from infra.sources import cpu_tag
from infra.stage_stack import StageStack
from infra.stages import Stage

AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
"""Driver 580 with CUDA 13.0. On the default AMI, a CUDA 13 image fails with CannotStartContainerError and no log."""

SWITCHED_OFF = "switched off:"
"""Part of the container's log line for an optimisation or engine that differs from eager float32 at start."""

REKOGNITION = ["rekognition:DetectFaces", "rekognition:DetectLabels"]

STARTUP_S = 600
"""Seconds that a container may take to become ready on an instance."""


class EndpointStack(StageStack):
    """One SageMaker endpoint in a stack of its own: if SageMaker refuses it, only this stack is rolled back.

    purpose: "bulk" or "interactive".
    name: name of the endpoint; "": none, in an empty stack. The IDs of its resources contain the name, so that a new
        name creates a second endpoint before CloudFormation deletes the first one.
    """

    def __init__(
        self, scope: Construct, *, purpose: str, name: str, stage: Stage, image_tag: str, network: NetworkStack | None
    ) -> None:
        super().__init__(scope, f"Maskdrop{purpose.title()}", stage=stage, description=f"endpoint {purpose}")
        self.endpoint = EndpointName(name)
        self._stage = stage
        self._image_tag = image_tag
        self._network = network
        self._purpose = purpose
        self._repository = stage.repository
        if not name:
            # A stack needs a resource. It stays, because `cdk deploy` would not delete a stack that the app lacks.
            CfnWaitConditionHandle(self, "NoEndpoint")
            return
        self._scope = Construct(self, name.removeprefix(f"maskdrop-{stage.name}-").title().replace("-", ""))
        self._log_group = log_group(self._scope, "Logs", stage=stage, name=self.endpoint.log_group)
        self._execution: iam.Role

    def _role(self, statements: Sequence[iam.PolicyStatement], *, objects: Sequence[str]) -> iam.Role:
        """Creates the execution role: `statements`, and the permissions that every endpoint needs.

        objects: the ARNs in `statements` that end in "*".
        """
        repository = f"arn:{Aws.PARTITION}:ecr:{Aws.REGION}:{Aws.ACCOUNT_ID}:repository/{self._repository}"
        # Inline policies exist before the model that needs them.
        role = iam.Role(
            self._scope,
            "Role",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            inline_policies={
                self._purpose: iam.PolicyDocument(
                    statements=[
                        *statements,
                        *key_use(self._stage, [action for one in statements for action in one.actions]),
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
                        iam.PolicyStatement(
                            actions=[
                                "ecr:GetAuthorizationToken",
                                *(SAGEMAKER_INTERFACES if self._network else []),
                                *(REKOGNITION if self._stage.rekognition else []),
                            ],
                            resources=["*"],
                        ),
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
            role, "*", "Their actions have no resource-level permissions; metrics are limited by namespace."
        )
        self._execution = role
        return role

    def _model(
        self, role: iam.Role, *, environment: Mapping[str, str], cpu: bool = False, weights: str = ""
    ) -> sagemaker.CfnModel:
        """Creates the model.

        environment: further environment variables of the model server.
        cpu: whether it runs the image without CUDA.
        weights: s3://bucket/prefix/; "": the weights in the image.
        """
        tag = cpu_tag(self._image_tag) if cpu else self._image_tag
        model = sagemaker.CfnModel(
            self._scope,
            "Model",
            execution_role_arn=role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}/{self._repository}:{tag}",
                environment={
                    "AWS_DEFAULT_REGION": Aws.REGION,
                    "MODEL_HOST": "0.0.0.0",  # noqa: S104  SageMaker reaches the container from outside
                    "MODEL_PORT": "8080",
                    "MODEL_WEIGHTS_DIR": "/opt/ml/model" if weights else "/opt/maskdrop/weights",
                    **({"MODEL_REKOGNITION": "1"} if self._stage.rekognition else {}),
                    **({"MODEL_NON_COMMERCIAL": "1"} if self._stage.non_commercial else {}),
                    **environment,
                },
                model_data_source=_uncompressed(weights) if weights else None,
            ),
            vpc_config=_vpc_config(self._network) if self._network else None,
        )
        model.node.add_dependency(role)
        return model

    def _on_instances(
        self, model: sagemaker.CfnModel, instance_type: str, *, gpu: bool, **properties: Any
    ) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        """Returns the variant on instances. properties: further properties of the variant."""
        if gpu:
            metric = self.endpoint.switched_off
            logs.MetricFilter(
                self._scope,
                "SwitchedOff",
                log_group=self._log_group,
                filter_pattern=logs.FilterPattern.literal(f'"{SWITCHED_OFF}"'),
                metric_namespace=metric.namespace,
                metric_name=metric.metric_name,
            )
        return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name=VARIANT,
            model_name=model.attr_model_name,
            instance_type=instance_type,
            inference_ami_version=AMI if gpu else None,
            initial_instance_count=1,  # an endpoint cannot start with 0 instances; scaling removes it
            initial_variant_weight=1,
            container_startup_health_check_timeout_in_seconds=STARTUP_S,
            **properties,
        )

    def _serverless(
        self, model: sagemaker.CfnModel, *, max_concurrency: int
    ) -> sagemaker.CfnEndpointConfig.ProductionVariantProperty:
        return sagemaker.CfnEndpointConfig.ProductionVariantProperty(
            variant_name=VARIANT,
            model_name=model.attr_model_name,
            initial_variant_weight=1,
            serverless_config=sagemaker.CfnEndpointConfig.ServerlessConfigProperty(
                memory_size_in_mb=self._stage.serverless_memory_mb, max_concurrency=max_concurrency
            ),
        )

    def _endpoint(
        self, variant: sagemaker.CfnEndpointConfig.ProductionVariantProperty, **configuration: Any
    ) -> sagemaker.CfnEndpoint:
        """Creates the endpoint. configuration: further properties of its configuration."""
        config = sagemaker.CfnEndpointConfig(self._scope, "Config", production_variants=[variant], **configuration)
        endpoint = sagemaker.CfnEndpoint(
            self._scope,
            "Endpoint",
            endpoint_name=self.endpoint.name,
            endpoint_config_name=config.attr_endpoint_config_name,
        )
        endpoint.node.add_dependency(self._log_group)
        return endpoint

    def _scale(
        self, endpoint: sagemaker.CfnEndpoint, minimum: int, maximum: int, *, failures: cloudwatch.Metric
    ) -> scaling.CfnScalableTarget:
        """Registers the instance count of the endpoint as a scalable target, which an update keeps.

        failures: metric that rolls an update back.
        """
        endpoint.retain_all_variant_properties = True  # otherwise an update sets the count to 1
        if maximum > 1:  # a second set of instances fits into the quota
            endpoint.deployment_config = self._replacement(failures)
        target = scaling.CfnScalableTarget(
            self._scope,
            "Instances",
            min_capacity=minimum,
            max_capacity=maximum,
            resource_id=f"endpoint/{self.endpoint.name}/variant/{VARIANT}",
            scalable_dimension="sagemaker:variant:DesiredInstanceCount",
            service_namespace="sagemaker",
        )
        target.node.add_dependency(endpoint)
        return target

    def _replacement(self, failures: cloudwatch.Metric) -> sagemaker.CfnEndpoint.DeploymentConfigProperty:
        """Replaces all instances at once, and returns to the old ones if requests fail in the next 5 minutes."""
        alarm = cloudwatch.Alarm(
            self._scope,
            "UpdateFails",
            alarm_description="Requests fail after an update of the endpoint: SageMaker returns to the old version. "
            + runbook_link("UpdateFails"),
            metric=failures,
            threshold=3,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        # SageMaker reads the alarm in the name of the role.
        self._execution.add_to_policy(
            iam.PolicyStatement(actions=["cloudwatch:DescribeAlarms"], resources=[alarm.alarm_arn])
        )
        config = sagemaker.CfnEndpoint
        return config.DeploymentConfigProperty(
            blue_green_update_policy=config.BlueGreenUpdatePolicyProperty(
                traffic_routing_configuration=config.TrafficRoutingConfigProperty(
                    type="ALL_AT_ONCE", wait_interval_in_seconds=300
                ),
                maximum_execution_timeout_in_seconds=3600,
            ),
            auto_rollback_configuration=config.AutoRollbackConfigProperty(
                alarms=[config.AlarmProperty(alarm_name=alarm.alarm_name)]
            ),
        )

    def _environment(self, *, gpu: bool) -> dict[str, str]:
        """Environment of a model server on an instance. On a GPU instance it must not fall back to the CPU."""
        if gpu:
            return {"MODEL_REQUIRE_GPU": "1", "MODEL_USD_PER_HOUR": str(self._stage.gpu_usd_per_hour)}
        return {"MODEL_DEVICE": "cpu", "MODEL_USD_PER_HOUR": str(self._stage.cpu_usd_per_hour)}


def objects_of(bucket: s3.Bucket, *prefixes: str) -> list[str]:
    """Returns the ARNs of the objects under prefixes of a bucket of another stack, which end in "*"."""
    arn = Stack.of(bucket).export_value(bucket.bucket_arn)
    return [f"{arn}/{prefix}*" for prefix in prefixes]


def weights_arns(weights: str) -> tuple[list[str], list[str]]:
    """Returns the ARNs of the bucket and of the objects of custom weights; two empty lists without them."""
    if not weights:
        return [], []
    bucket, _, prefix = weights.removeprefix("s3://").partition("/")
    return [f"arn:{Aws.PARTITION}:s3:::{bucket}"], [f"arn:{Aws.PARTITION}:s3:::{bucket}/{prefix}*"]


def _vpc_config(network: NetworkStack) -> sagemaker.CfnModel.VpcConfigProperty:
    return sagemaker.CfnModel.VpcConfigProperty(
        security_group_ids=[network.containers.security_group_id],
        subnets=[subnet.subnet_id for subnet in network.vpc.isolated_subnets],
    )


def _uncompressed(weights: str) -> sagemaker.CfnModel.ModelDataSourceProperty:
    """Reads the files under the prefix uncompressed: an archive saves little and costs time at every start."""
    return sagemaker.CfnModel.ModelDataSourceProperty(
        s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
            s3_uri=weights, s3_data_type="S3Prefix", compression_type="None"
        )
    )
