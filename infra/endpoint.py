"""The asynchronous endpoint `bulk`: 0 to `stage.max_instances` GPU instances, and the SNS topics of its results."""

from __future__ import annotations

from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from constructs import Construct

from infra.container import (
    AMI,
    STARTUP_S,
    VARIANT,
    Endpoint,
    gpu_environment,
    weights_arns,
)
from infra.stages import Stage
from infra.storage import BUNDLES_PREFIX, Storage
from maskdrop.flow import RESPONSES_PREFIX
from maskdrop.job import BACKGROUNDS_PREFIX, INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX

CONCURRENT_BUNDLES = 2
"""Concurrent bundles per instance: the images of one are read and decoded while the GPU processes the other."""

BACKLOG_PER_INSTANCE = 4
"""Queued bundles per instance above which another instance starts: about 12 s of work at 20 images a second."""


class BulkEndpoint(Endpoint):
    """Writes results to results/bundles/out/ and notifies the topic `completed` or `failed`."""

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
        super().__init__(scope, construct_id, purpose="bulk", stage=stage)
        self.completed = sns.Topic(self, "Completed", master_key=topic_key, enforce_ssl=True)
        self.failed = sns.Topic(self, "Failed", master_key=topic_key, enforce_ssl=True)
        model = self._model(
            self._execution_role(storage=storage, topic_key=topic_key, weights=stage.weights),
            image_tag=image_tag,
            weights=stage.weights,
            environment=gpu_environment(stage),
        )
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
                    initial_instance_count=1,  # an endpoint cannot start with 0 instances; scaling removes it
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=STARTUP_S,
                )
            ],
            async_inference_config=sagemaker.CfnEndpointConfig.AsyncInferenceConfigProperty(
                client_config=sagemaker.CfnEndpointConfig.AsyncInferenceClientConfigProperty(
                    max_concurrent_invocations_per_instance=CONCURRENT_BUNDLES
                ),
                output_config=sagemaker.CfnEndpointConfig.AsyncInferenceOutputConfigProperty(
                    s3_output_path=f"s3://{results}/{RESPONSES_PREFIX}",
                    s3_failure_path=f"s3://{results}/{BUNDLES_PREFIX}failed/",
                    notification_config=sagemaker.CfnEndpointConfig.AsyncInferenceNotificationConfigProperty(
                        success_topic=self.completed.topic_arn, error_topic=self.failed.topic_arn
                    ),
                ),
            ),
        )
        self._scale(self._endpoint(config), stage.max_instances)

    def _execution_role(self, *, storage: Storage, topic_key: kms.IKey, weights: str | None) -> iam.Role:
        inbox, results = storage.inbox, storage.results
        photos = [inbox.arn_for_objects(f"{prefix}*") for prefix in (INBOX_PREFIX, UPLOADS_PREFIX, BACKGROUNDS_PREFIX)]
        outputs = [results.arn_for_objects(f"{prefix}*") for prefix in (RESULTS_PREFIX, BUNDLES_PREFIX)]
        sources = [bucket.arn_for_objects("*") for bucket in storage.sources]
        weights_bucket, weights_objects = weights_arns(weights)
        readable = [*photos, *sources, *outputs, *weights_objects]
        return self._role(
            [
                iam.PolicyStatement(actions=["s3:GetObject"], resources=readable),
                iam.PolicyStatement(actions=["s3:PutObject"], resources=outputs),
                # Without it, S3 returns 403 for a missing object, and the job would report the wrong error.
                iam.PolicyStatement(
                    actions=["s3:ListBucket"],
                    resources=[bucket.bucket_arn for bucket in (inbox, results, *storage.sources)] + weights_bucket,
                ),
                iam.PolicyStatement(
                    actions=["sns:Publish"], resources=[self.completed.topic_arn, self.failed.topic_arn]
                ),
                iam.PolicyStatement(actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[topic_key.key_arn]),
            ],
            objects=readable,
        )

    def _scale(self, endpoint: sagemaker.CfnEndpoint, max_instances: int) -> None:
        """Adds two scaling policies.

        Target tracking follows the backlog per instance, which is undefined at 0 instances.
        Step scaling therefore starts the first instance.
        """
        target = self._instances(endpoint, 0, max_instances)
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
                scale_in_cooldown=600,  # a new instance takes 5 to 10 minutes: it stays through a short pause
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
            alarm_description="Bundles are queued and no instance runs: starts the first instance.",
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
