"""The synchronous endpoint `interactive`, which processes one image per request. The stage selects its mode:

serverless   on CPUs, billed per request. The first request after a pause waits for a cold start.
realtime     on GPU instances, at least one of which always runs.
off          no endpoint.
"""

from __future__ import annotations

from aws_cdk import aws_applicationautoscaling as scaling
from aws_cdk import aws_iam as iam
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from infra.container import (
    AMI,
    STARTUP_S,
    VARIANT,
    Endpoint,
    gpu_environment,
    weights_arns,
)
from infra.image import cpu_tag
from infra.stages import Stage
from infra.storage import Storage
from maskdrop.interactive import CUTOUTS_PREFIX
from maskdrop.job import BACKGROUNDS_PREFIX, SENT_BACKGROUNDS_PREFIX

MEMORY_MB = 6144
"""Maximum memory of a serverless endpoint in MB; vCPUs scale with it. A 48 MP image takes 0.77 GB at the peak."""

REQUESTS_PER_INSTANCE = 4
"""Concurrent requests per GPU instance above which another instance starts: one per core of an ml.g6.xlarge, which
decode and encode."""


class InteractiveEndpoint(Endpoint):
    """Receives an image and returns its result; writes a result that is too large to results/cutouts/."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage, storage: Storage, image_tag: str) -> None:
        super().__init__(scope, construct_id, purpose="interactive", stage=stage)
        if stage.interactive == "realtime":
            self._realtime(stage, storage, image_tag)
        else:
            self._serverless(stage, storage, image_tag)

    def _serverless(self, stage: Stage, storage: Storage, image_tag: str) -> None:
        # A serverless endpoint supports no weights under a prefix, and its container processes one image at a time.
        environment = {"MODEL_DEVICE": "cpu", "MODEL_WORKERS": "1"}
        model = self._model(
            self._execution_role(storage, weights=None),
            image_tag=cpu_tag(image_tag),
            weights=None,
            environment=environment,
        )
        self._endpoint(
            self._config(
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=VARIANT,
                    model_name=model.attr_model_name,
                    initial_variant_weight=1,
                    serverless_config=sagemaker.CfnEndpointConfig.ServerlessConfigProperty(
                        memory_size_in_mb=MEMORY_MB, max_concurrency=stage.interactive_at_once
                    ),
                )
            )
        )

    def _realtime(self, stage: Stage, storage: Storage, image_tag: str) -> None:
        model = self._model(
            self._execution_role(storage, weights=stage.weights),
            image_tag=image_tag,
            weights=stage.weights,
            environment=gpu_environment(stage),
        )
        endpoint = self._endpoint(
            self._config(
                sagemaker.CfnEndpointConfig.ProductionVariantProperty(
                    variant_name=VARIANT,
                    model_name=model.attr_model_name,
                    instance_type=stage.instance_type,
                    inference_ami_version=AMI,
                    initial_instance_count=1,
                    initial_variant_weight=1,
                    container_startup_health_check_timeout_in_seconds=STARTUP_S,
                    routing_config=sagemaker.CfnEndpointConfig.RoutingConfigProperty(
                        routing_strategy="LEAST_OUTSTANDING_REQUESTS"
                    ),
                )
            )
        )
        target = self._instances(endpoint, 1, stage.interactive_instances)
        scaling.CfnScalingPolicy(
            self,
            "FollowCalls",
            policy_name=f"{self.name}-follow-calls",
            policy_type="TargetTrackingScaling",
            scaling_target_id=target.ref,
            target_tracking_scaling_policy_configuration=scaling.CfnScalingPolicy.TargetTrackingScalingPolicyConfigurationProperty(
                target_value=REQUESTS_PER_INSTANCE,
                predefined_metric_specification=scaling.CfnScalingPolicy.PredefinedMetricSpecificationProperty(
                    predefined_metric_type="SageMakerVariantConcurrentRequestsPerModelHighResolution"  # every 10 s
                ),
                scale_in_cooldown=600,  # as for bulk: a new instance takes 5 to 10 minutes
                scale_out_cooldown=300,
            ),
        )

    def _config(self, variant: sagemaker.CfnEndpointConfig.ProductionVariantProperty) -> sagemaker.CfnEndpointConfig:
        return sagemaker.CfnEndpointConfig(self, "Config", production_variants=[variant])

    def _execution_role(self, storage: Storage, *, weights: str | None) -> iam.Role:
        large = storage.results.arn_for_objects(f"{CUTOUTS_PREFIX}*")
        backgrounds = storage.inbox.arn_for_objects(f"{BACKGROUNDS_PREFIX}*")
        sent = storage.inbox.arn_for_objects(f"{SENT_BACKGROUNDS_PREFIX}*")
        weights_bucket, weights_objects = weights_arns(weights)
        readable = [backgrounds, sent, *weights_objects]
        return self._role(
            [
                iam.PolicyStatement(actions=["s3:PutObject"], resources=[large]),
                iam.PolicyStatement(actions=["s3:GetObject"], resources=readable),
                # Without it, S3 returns 403 for a missing background, and the response would report the wrong error.
                iam.PolicyStatement(actions=["s3:ListBucket"], resources=[storage.inbox.bucket_arn, *weights_bucket]),
            ],
            objects=[large, *readable],
        )
