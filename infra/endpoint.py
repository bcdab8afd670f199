"""The asynchronous endpoint `bulk`: GPUs from none to `stage.max_instances`, and the topics on which it answers."""

from __future__ import annotations

from aws_cdk import Aws, Duration, RemovalPolicy
from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.nag import acknowledge_wildcard
from infra.stages import Stage
from infra.storage import BUNDLES_PREFIX, Storage
from maskdrop.flow import ANSWERS_PREFIX
from maskdrop.job import BACKGROUNDS_PREFIX, INBOX_PREFIX, RESULTS_PREFIX

VARIANT = "main"

AMI = "al2023-ami-sagemaker-inference-gpu-4-1"
"""Driver 580 with CUDA 13.0. On the default one, a CUDA 13 image dies with CannotStartContainerError and no log."""

BUNDLES_AT_ONCE = 2
"""Per instance: while the GPU works on one bundle, the pictures of the next are read and decoded."""

BACKLOG_PER_INSTANCE = 4
"""Bundles that may wait per instance before another is started: about 12 s of work at 20 pictures a second."""

SCALING_NAMESPACE, SCALING_DIMENSION = "sagemaker", "sagemaker:variant:DesiredInstanceCount"


class BulkEndpoint(Construct):
    """Answers lie in results/bundles/out/; word of them goes to the topic `completed` or `failed`."""

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        stage: Stage,
        storage: Storage,
        topic_key: kms.IKey,
        image_tag: str,
    ) -> None:
        super().__init__(scope, construct_id)
        self.name = f"maskdrop-{stage.name}-bulk"
        self.arn = f"arn:{Aws.PARTITION}:sagemaker:{Aws.REGION}:{Aws.ACCOUNT_ID}:endpoint/{self.name}"
        self.completed = sns.Topic(self, "Completed", master_key=topic_key, enforce_ssl=True)
        self.failed = sns.Topic(self, "Failed", master_key=topic_key, enforce_ssl=True)

        repository = f"maskdrop-{stage.name}"
        log_group = logs.LogGroup(
            self,
            "Logs",
            log_group_name=f"/aws/sagemaker/Endpoints/{self.name}",
            retention=stage.keep_logs,
            removal_policy=RemovalPolicy.DESTROY,
        )
        role = self._role(
            storage=storage, topic_key=topic_key, repository=repository, log_group=log_group, weights=stage.weights
        )
        model = sagemaker.CfnModel(
            self,
            "Model",
            execution_role_arn=role.role_arn,
            primary_container=sagemaker.CfnModel.ContainerDefinitionProperty(
                image=f"{Aws.ACCOUNT_ID}.dkr.ecr.{Aws.REGION}.{Aws.URL_SUFFIX}/{repository}:{image_tag}",
                environment={
                    "MODEL_HOST": "0.0.0.0",  # noqa: S104  SageMaker reaches the container from outside
                    "MODEL_PORT": "8080",
                    "MODEL_REQUIRE_GPU": "1",  # an instance that works without its GPU costs the same
                    "MODEL_USD_PER_HOUR": str(stage.usd_per_hour),
                    "MODEL_WEIGHTS_DIR": "/opt/ml/model" if stage.weights else "/opt/maskdrop/weights",
                },
                model_data_source=_uncompressed(stage.weights) if stage.weights else None,
            ),
        )
        model.node.add_dependency(role)
        results = storage.results.bucket_name
        config = sagemaker.CfnEndpointConfig(
            self,
            "Config",
            production_variants=[
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=VARIANT,
                    model_name=model.attr_model_name,
                    instance_type=stage.instance_type,
                    inference_ami_version=AMI,
                    initial_instance_count=1,  # an endpoint cannot be made with none; scaling takes it away
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=600,
                )
            ],
            async_inference_config=sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty(
                client_config=sagemaker.CfnEndpointConfig.AsyncInferenceClientConfigProperty(
                    max_concurrent_invocations_per_instance=BUNDLES_AT_ONCE
                ),
                output_config=sagemaker.CfnEndpointConfig.AsyncInferenceOutputConfigProperty(
                    s3_output_path=f"s3://{results}/{ANSWERS_PREFIX}",
                    s3_failure_path=f"s3://{results}/{BUNDLES_PREFIX}failed/",
                    notification_config=sagemaker.CfnEndpointConfig.AsyncInferenceNotificationConfigProperty(
                        success_topic=self.completed.topic_arn, error_topic=self.failed.topic_arn
                    ),
                ),
            ),
        )
        endpoint = sagemaker.CfnEndpoint(
            self, "Endpoint", endpoint_name=self.name, endpoint_config_name=config.attr_endpoint_config_name
        )
        endpoint.node.add_dependency(log_group)
        self._scale(endpoint, stage.max_instances)

    def metric(self, name: str, *, statistic: str = "Average") -> cloudwatch.Metric:
        """One of the endpoint's own metrics, by the minute."""
        return cloudwatch.Metric(
            namespace="AWS/SageMaker",
            metric_name=name,
            dimensions_map={"EndpointName": self.name},
            statistic=statistic,
            period=Duration.minutes(1),
        )

    def _role(
        self,
        *,
        storage: Storage,
        topic_key: kms.IKey,
        repository: str,
        log_group: logs.LogGroup,
        weights: str | None,
    ) -> iam.Role:
        inbox, results = storage.inbox, storage.results
        photos = [inbox.arn_for_objects(f"{prefix}*") for prefix in (INBOX_PREFIX, BACKGROUNDS_PREFIX)]
        pictures = [results.arn_for_objects(f"{prefix}*") for prefix in (RESULTS_PREFIX, BUNDLES_PREFIX)]
        weights_bucket, weights_objects = [], []
        if weights:
            bucket, _, prefix = weights.removeprefix("s3://").partition("/")
            weights_bucket = [f"arn:{Aws.PARTITION}:s3:::{bucket}"]
            weights_objects = [f"arn:{Aws.PARTITION}:s3:::{bucket}/{prefix}*"]
        repository_arn = f"arn:{Aws.PARTITION}:ecr:{Aws.REGION}:{Aws.ACCOUNT_ID}:repository/{repository}"
        # Inline, so that the rights are there before the model that needs them.
        role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            inline_policies={
                "bulk": iam.PolicyDocument(
                    statements=[
                        iam.PolicyStatement(actions=["s3:GetObject"], resources=[*photos, *pictures, *weights_objects]),
                        iam.PolicyStatement(actions=["s3:PutObject"], resources=pictures),
                        # Without it, S3 says 403 for an object that is not there, and the job could not say why.
                        iam.PolicyStatement(
                            actions=["s3:ListBucket"],
                            resources=[inbox.bucket_arn, results.bucket_arn, *weights_bucket],
                        ),
                        iam.PolicyStatement(
                            actions=["sns:Publish"], resources=[self.completed.topic_arn, self.failed.topic_arn]
                        ),
                        iam.PolicyStatement(
                            actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[topic_key.key_arn]
                        ),
                        iam.PolicyStatement(
                            actions=[
                                "ecr:BatchCheckLayerAvailability",
                                "ecr:BatchGetImage",
                                "ecr:GetDownloadUrlForLayer",
                            ],
                            resources=[repository_arn],
                        ),
                        iam.PolicyStatement(
                            actions=["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"],
                            resources=[log_group.log_group_arn],
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
        for objects in [*photos, *pictures, *weights_objects]:
            acknowledge_wildcard(role, objects, "The objects of one prefix: the endpoint reads or writes them all.")
        acknowledge_wildcard(role, "*", "Neither a registry login nor a metric has a resource; metrics by namespace.")
        return role

    def _scale(self, endpoint: sagemaker.CfnEndpoint, max_instances: int) -> None:
        """Two policies, both needed: the first follows the backlog per instance, which nothing divided by zero has;
        the second wakes the first instance."""
        resource = f"endpoint/{self.name}/variant/{VARIANT}"
        target = scaling.CfnScalableTarget(
            self,
            "Instances",
            min_capacity=0,
            max_capacity=max_instances,
            resource_id=resource,
            scalable_dimension=SCALING_DIMENSION,
            service_namespace=SCALING_NAMESPACE,
        )
        target.node.add_dependency(endpoint)
        scaling.CfnScalingPolicy(
            self,
            "FollowBacklog",
            policy_name=f"{self.name}-follow-backlog",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
                target_value=BACKLOG_PER_INSTANCE,
                customized_metric_specification=scaling.CfnScalingPolicy.CustomizedMetricSpecificationProperty(
                    namespace="AWS/SageMaker",
                    metric_name="ApproximateBacklogSizePerInstance",
                    dimensions=[scaling.CfnScalingPolicy.MetricDimensionProperty(name="EndpointName", value=self.name)],
                    statistic="Average",
                ),
                scale_in_cooldown=600,  # a new instance takes 5 to 10 minutes: not given away for a short lull
                scale_out_cooldown=300,
            ),
        )
        wake = scaling.CfnScalingPolicy(
            self,
            "WakeUp",
            policy_name=f"{self.name}-wake-up",
            policy_type="StepScaling",
            scaling_target_id=target.ref,
            step_scaling_policy_configuration=scaling.CfnScalingPolicy.StepScalingPolicyConfigurationProperty(
                adjustment_type="ChangeInCapacity",
                cooldown=300,
                metric_aggregation_type="Average",
                step_adjustments=[
                    scaling.CfnScalingPolicy.StepAdjustmentProperty(metric_interval_lower_bound=0, scaling_adjustment=1)
                ],
            ),
        )
        cloudwatch.CfnAlarm(
            self,
            "AsleepWithWork",
            alarm_description="Bundles wait and no instance runs: wakes the first one.",
            namespace="AWS/SageMaker",
            metric_name="HasBacklogWithoutCapacity",
            dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name="EndpointName", value=self.name)],
            statistic="Maximum",
            period=60,
            evaluation_periods=1,
            threshold=1,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[wake.ref],
        )


def _uncompressed(weights: str) -> sagemaker.CfnModel.ModelDataSourceProperty:
    """The files as they lie under the prefix: packed they are hardly smaller, and every start would unpack them."""
    return sagemaker.CfnModel.ModelDataSourceProperty(
        s3_data_source=sagemaker.CfnModel.S3DataSourceProperty(
            s3_uri=weights, s3_data_type="S3Prefix", compression_type="None"
        )
    )
