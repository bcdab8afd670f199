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

from infra.container import EndpointStack, objects_of, weights_arns
from infra.network import NetworkStack
from infra.stages import Stage
from infra.storage import Storage
from maskdrop.interactive import CUTOUTS_PREFIX
from maskdrop.job import BACKGROUNDS_PREFIX, SENT_BACKGROUNDS_PREFIX

REQUESTS_PER_INSTANCE = 4
"""Concurrent requests per GPU instance above which another instance starts: one per core of an ml.g6.xlarge, which
decode and encode."""


class InteractiveStack(EndpointStack):
    """Receives an image and returns its result; writes a result that is too large to results/cutouts/."""

    def __init__(
        self, scope: Construct, *, stage: Stage, storage: Storage, image_tag: str, network: NetworkStack | None
    ) -> None:
        name = stage.interactive_endpoint
        super().__init__(scope, purpose="interactive", name=name, stage=stage, image_tag=image_tag, network=network)
        if stage.interactive == "off":
            return
        if stage.interactive == "serverless":
            # A serverless endpoint supports no weights under a prefix, and its container processes one image at a time.
            model = self._model(
                self._execution_role(storage, weights=""),
                environment={"MODEL_DEVICE": "cpu", "MODEL_WORKERS": "1"},
                cpu=True,
            )
            self._endpoint(self._serverless(model, max_concurrency=stage.interactive_at_once))
            return
        model = self._model(
            self._execution_role(storage, weights=stage.weights),
            environment=self._environment(gpu=True),
            weights=stage.weights,
        )
        endpoint = self._endpoint(
            self._on_instances(
                model,
                stage.gpu_instance_type,
                gpu=True,
                routing_config=sagemaker.CfnEndpointConfig.RoutingConfigProperty(
                    routing_strategy="LEAST_OUTSTANDING_REQUESTS"
                ),
            )
        )
        failures = self.endpoint.metric("Invocation5XXErrors", statistic="Sum", of_variant=True)
        self._follow_requests(self._scale(endpoint, 1, stage.interactive_max_instances, failures=failures))

    def _follow_requests(self, target: scaling.CfnScalableTarget) -> None:
        scaling.CfnScalingPolicy(
            self._scope,
            "FollowCalls",
            policy_name=f"{self.endpoint.name}-follow-calls",
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

    def _execution_role(self, storage: Storage, *, weights: str) -> iam.Role:
        large = objects_of(storage.results, CUTOUTS_PREFIX)
        backgrounds = objects_of(storage.inbox, BACKGROUNDS_PREFIX, SENT_BACKGROUNDS_PREFIX)
        weights_bucket, weights_objects = weights_arns(weights)
        readable = [*backgrounds, *weights_objects]
        return self._role(
            [
                iam.PolicyStatement(actions=["s3:PutObject"], resources=large),
                iam.PolicyStatement(actions=["s3:GetObject"], resources=readable),
                # Without it, S3 returns 403 for a missing background, and the response would report the wrong error.
                iam.PolicyStatement(actions=["s3:ListBucket"], resources=[storage.inbox.bucket_arn, *weights_bucket]),
            ],
            objects=[*large, *readable],
        )
