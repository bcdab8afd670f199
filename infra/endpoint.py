"""The asynchronous endpoint `bulk`: GPUs from none to `stage.max_instances`, and the topics on which it answers."""

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
from maskdrop.flow import ANSWERS_PREFIX
from maskdrop.job import BACKGROUNDS_PREFIX, INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX

BUNDLES_AT_ONCE = 2
"""Per instance: while the GPU works on one bundle, the images of the next are read and decoded."""

BACKLOG_PER_INSTANCE = 4
"""Bundles that may wait per instance before another is started: about 12 s of work at 20 images a second."""


class BulkEndpoint(Endpoint):
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
        super().__init__(scope, construct_id, purpose="bulk", stage=stage)
        self.completed = sns.Topic(self, "Completed", master_key=topic_key, enforce_ssl=True)
        self.failed = sns.Topic(self, "Failed", master_key=topic_key, enforce_ssl=True)
        model = self._model(
            self._may(storage=storage, topic_key=topic_key, weights=stage.weights),
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
                    initial_instance_count=1,  # an endpoint cannot be made with none; scaling takes it away
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=STARTUP_S,
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
        self._scale(self._endpoint(config), stage.max_instances)

    def _may(self, *, storage: Storage, topic_key: kms.IKey, weights: str | None) -> iam.Role:
        inbox, results = storage.inbox, storage.results
        photos = [inbox.arn_for_objects(f"{prefix}*") for prefix in (INBOX_PREFIX, UPLOADS_PREFIX, BACKGROUNDS_PREFIX)]
        pictures = [results.arn_for_objects(f"{prefix}*") for prefix in (RESULTS_PREFIX, BUNDLES_PREFIX)]
        sources = [bucket.arn_for_objects("*") for bucket in storage.sources]
        weights_bucket, weights_objects = weights_arns(weights)
        readable = [*photos, *sources, *pictures, *weights_objects]
        return self._role(
            [
                iam.PolicyStatement(actions=["s3:GetObject"], resources=readable),
                iam.PolicyStatement(actions=["s3:PutObject"], resources=pictures),
                # Without it, S3 says 403 for an object that is not there, and the job could not say why.
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
        """Two policies, both needed: the first follows the backlog per instance, which nothing divided by zero has;
        the second wakes the first instance."""
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
