"""The endpoint `bulk`, which processes jobs: on 0 to `stage.bulk_max_instances` instances, or serverless."""

from __future__ import annotations

from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.container import EndpointStack, objects_of, weights_arns
from infra.malware import IF_CLEAN
from infra.network import NetworkStack
from infra.notifications import Notifications
from infra.runbooks import runbook_link
from infra.stages import Stage
from infra.storage import Storage
from maskdrop.edit import EDITS_PREFIX
from maskdrop.flow import BUNDLES_PREFIX as REQUESTS_PREFIX
from maskdrop.flow import RESPONSES_PREFIX
from maskdrop.job import BACKGROUNDS_PREFIX, RESULTS_PREFIX
from maskdrop.malware import SCANNED
from maskdrop.wire import STARTED_PREFIX

FAILURES_PREFIX = "bundles/failed/"
"""Key prefix of the errors of requests, which the asynchronous endpoint writes."""

CONCURRENT_BUNDLES = 2
"""Concurrent bundles per instance: the images of one are read and decoded while the other is processed."""

BACKLOG_PER_INSTANCE = 4
"""Queued bundles per instance above which another instance starts: about 12 s of work at 20 images a second."""

WORKER_MB = 1536
"""Memory of a serverless endpoint per image in progress: a server with a 50 MP JPEG takes 1.0 GB at the peak."""


class BulkStack(EndpointStack):
    """On instances, it writes responses to bundles/out/ and notifies the topic `completed` or `failed`."""

    def __init__(
        self,
        scope: Construct,
        *,
        stage: Stage,
        storage: Storage,
        notifications: Notifications,
        image_tag: str,
        network: NetworkStack | None,
    ) -> None:
        name = stage.bulk_endpoint
        super().__init__(scope, purpose="bulk", name=name, stage=stage, image_tag=image_tag, network=network)
        if stage.bulk == "serverless":
            # A serverless endpoint supports no weights under a prefix. The number of cores that its container sees is
            # not its share, hence the number of workers.
            environment = {"MODEL_DEVICE": "cpu", "MODEL_WORKERS": str(stage.serverless_memory_mb // WORKER_MB)}
            model = self._model(self._execution_role(storage, None), environment=environment, cpu=True)
            self._endpoint(self._serverless(model, max_concurrency=stage.bulk_at_once))
            return
        gpu = stage.bulk == "gpu"
        model = self._model(
            self._execution_role(storage, notifications),
            environment=self._environment(gpu=gpu),
            cpu=not gpu,
            weights=stage.weights,
        )
        results = storage.results.bucket_name
        config = sagemaker.CfnEndpointConfig
        endpoint = self._endpoint(
            self._on_instances(model, stage.gpu_instance_type if gpu else stage.cpu_instance_type, gpu=gpu),
            async_inference_config=config.AsyncInferenceConfigProperty(
                client_config=config.AsyncInferenceClientConfigProperty(
                    max_concurrent_invocations_per_instance=CONCURRENT_BUNDLES
                ),
                output_config=config.AsyncInferenceOutputConfigProperty(
                    s3_output_path=f"s3://{results}/{RESPONSES_PREFIX}",
                    s3_failure_path=f"s3://{results}/{FAILURES_PREFIX}",
                    notification_config=config.AsyncInferenceNotificationConfigProperty(
                        success_topic=notifications.completed.topic_arn, error_topic=notifications.failed.topic_arn
                    ),
                ),
            ),
        )
        self._follow_backlog(
            self._scale(
                endpoint,
                0,
                stage.bulk_max_instances,
                failures=self.endpoint.metric("InvocationFailures", statistic="Sum", of_variant=True),
            )
        )

    def _execution_role(self, storage: Storage, notifications: Notifications | None) -> iam.Role:
        """notifications: None for an endpoint that is not asynchronous."""
        inbox, results = storage.inbox, storage.results
        photos, backgrounds = objects_of(inbox, *SCANNED), objects_of(inbox, BACKGROUNDS_PREFIX)
        images = objects_of(results, RESULTS_PREFIX, EDITS_PREFIX)
        # Not of bundles/in/: a container that is taken over could not submit bundles with the options of others.
        outputs = [*images, *objects_of(results, RESPONSES_PREFIX, FAILURES_PREFIX, STARTED_PREFIX)]
        weights_bucket, weights_objects = weights_arns(self._stage.weights if notifications else "")
        bundles = objects_of(results, REQUESTS_PREFIX)
        trusted = [*backgrounds, *storage.source_objects, *images, *bundles, *weights_objects]
        readable = [*photos, *trusted]
        statements = [
            # Beside the check in `ingest`: a file that is decoded before its scan could take over the container.
            *(
                [
                    iam.PolicyStatement(actions=["s3:GetObject"], resources=photos, conditions=IF_CLEAN),
                    iam.PolicyStatement(actions=["s3:GetObject"], resources=trusted),
                ]
                if self._stage.malware_scan
                else [iam.PolicyStatement(actions=["s3:GetObject"], resources=readable)]
            ),
            iam.PolicyStatement(actions=["s3:PutObject"], resources=outputs),
            # Without it, S3 returns 403 for a missing object, and the job would report the wrong error.
            iam.PolicyStatement(
                actions=["s3:ListBucket"],
                resources=[bucket.bucket_arn for bucket in (inbox, results, *storage.sources)] + weights_bucket,
            ),
        ]
        if notifications:
            topics = [notifications.completed.topic_arn, notifications.failed.topic_arn]
            statements += [
                iam.PolicyStatement(actions=["sns:Publish"], resources=topics),
                iam.PolicyStatement(
                    actions=["kms:Decrypt", "kms:GenerateDataKey"], resources=[notifications.key.key_arn]
                ),
            ]
        return self._role(statements, objects=[*dict.fromkeys([*readable, *outputs])])

    def _follow_backlog(self, target: scaling.CfnScalableTarget) -> None:
        """Adds two scaling policies.

        Target tracking follows the backlog per instance, which is undefined at 0 instances.
        Step scaling therefore starts the first instance.
        """
        policy = scaling.CfnScalingPolicy
        policy(
            self._scope,
            "FollowBacklog",
            policy_name=f"{self.endpoint.name}-follow-backlog",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=policy.TargetTrackingScalingPolicyConfigurationProperty(
                target_value=BACKLOG_PER_INSTANCE,
                customized_metric_specification=policy.CustomizedMetricSpecificationProperty(
                    namespace="AWS/SageMaker",
                    metric_name="ApproximateBacklogSizePerInstance",
                    dimensions=[policy.MetricDimensionProperty(name="EndpointName", value=self.endpoint.name)],
                    statistic="Average",
                ),
                scale_in_cooldown=600,  # a new instance takes 5 to 10 minutes: it stays through a short pause
                scale_out_cooldown=300,
            ),
        )
        wake = policy(
            self._scope,
            "WakeUp",
            policy_name=f"{self.endpoint.name}-wake-up",
            policy_type="StepScaling",
            scaling_target_id=target.ref,
            step_scaling_policy_configuration=policy.StepScalingPolicyConfigurationProperty(
                adjustment_type="ChangeInCapacity",
                cooldown=300,
                metric_aggregation_type="Average",
                step_adjustments=[policy.StepAdjustmentProperty(metric_interval_lower_bound=0, scaling_adjustment=1)],
            ),
        )
        cloudwatch.CfnAlarm(
            self._scope,
            "AsleepWithWork",
            alarm_description="Bundles are queued and no instance runs: starts the first instance. "
            + runbook_link("AsleepWithWork"),
            namespace="AWS/SageMaker",
            metric_name="HasBacklogWithoutCapacity",
            dimensions=[cloudwatch.CfnAlarm.DimensionProperty(name="EndpointName", value=self.endpoint.name)],
            statistic="Maximum",
            period=60,
            evaluation_periods=1,
            threshold=1,
            comparison_operator="GreaterThanOrEqualToThreshold",
            treat_missing_data="notBreaching",
            alarm_actions=[wake.ref],
        )
