"""The S3 buckets: `inbox` receives photos, `results` stores results and bundles, `logs` stores access logs."""

from __future__ import annotations

from typing import cast

from aws_cdk import Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.nag import acknowledge
from infra.retention import data_policy
from infra.stages import Stage
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX

BUNDLES_PREFIX = "bundles/"


class Storage(Construct):
    """The buckets of a stage. Separate buckets for photos and results ensure that no result becomes a job.

    sources: existing buckets, whose images jobs may use. source_objects: ARNs of these images, which end in "*".
    """

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage, jobs: sqs.Queue) -> None:
        super().__init__(scope, construct_id)
        self._removal_policy = data_policy(stage)
        folders = [source.partition("/") for source in stage.source_buckets]
        buckets = {name: s3.Bucket.from_bucket_name(self, name, name) for name, _, _ in folders}
        self.sources = list(buckets.values())
        self.source_objects = [buckets[name].arn_for_objects(f"{prefix}*") for name, _, prefix in folders]
        self._cors = list(stage.cors)
        retention = Duration.days(stage.keep_results_days)
        unfinished = s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1))

        self.logs = self._bucket("Logs", rules=[s3.LifecycleRule(expiration=Duration.days(90))])
        acknowledge(
            self.logs,
            "AwsSolutions-S1",
            "The bucket of access logs: logging access to it would create logs without end.",
        )
        self.inbox = self._bucket(
            "Inbox",
            versioned=True,  # a job processes one version of a photo, even if it is replaced meanwhile
            rules=[
                unfinished,
                s3.LifecycleRule(noncurrent_version_expiration=retention, expired_object_delete_marker=True),
                # A job is queued for hours at most. Users manage the photos under inbox/; uploads/ is cleared here.
                s3.LifecycleRule(
                    prefix=UPLOADS_PREFIX,
                    expiration=Duration.days(7),
                    noncurrent_version_expiration=Duration.days(1),  # deleted uploads are removed after a day
                ),
            ],
        )
        self.results = self._bucket(
            "Results",
            rules=[
                unfinished,
                s3.LifecycleRule(prefix=RESULTS_PREFIX, expiration=retention),
                s3.LifecycleRule(prefix=BUNDLES_PREFIX, expiration=Duration.days(7)),
            ],
        )
        self._notify(self.inbox, jobs)

    def _bucket(self, name: str, *, rules: list[s3.LifecycleRule], versioned: bool = False) -> s3.Bucket:
        logs = None if name == "Logs" else self.logs
        return s3.Bucket(
            self,
            name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            cors=self._cors_rules() if logs else None,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            lifecycle_rules=rules,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=self._removal_policy,
            auto_delete_objects=self._removal_policy is RemovalPolicy.DESTROY,
            server_access_logs_bucket=logs,
            server_access_logs_prefix=f"{name.lower()}/" if logs else None,
            versioned=versioned,
        )

    def _cors_rules(self) -> list[s3.CorsRule] | None:
        """Allows the origins of the API to use its presigned upload forms and result URLs. None without origins."""
        methods = [s3.HttpMethods.GET, s3.HttpMethods.POST]
        rule = s3.CorsRule(allowed_methods=methods, allowed_origins=self._cors, allowed_headers=["*"])
        return [rule] if self._cors else None

    def _notify(self, bucket: s3.Bucket, queue: sqs.Queue) -> None:
        """Sends a message to the queue for every object created under inbox/.

        Set on the CloudFormation resource: the CDK method adds a function that runs at deployment. The queue policy
        must exist before the bucket, so it allows every bucket name that this stack can generate.
        """
        names = f"arn:{Aws.PARTITION}:s3:::{Stack.of(self).stack_name.lower()}-*"
        queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowS3Notifications",
                actions=["sqs:SendMessage"],
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                resources=[queue.queue_arn],
                conditions={
                    "StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID},
                    "ArnLike": {"aws:SourceArn": names},
                },
            )
        )
        resource = cast(s3.CfnBucket, bucket.node.default_child)
        resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
            queue_configurations=[
                s3.CfnBucket.QueueConfigurationProperty(
                    event="s3:ObjectCreated:*",
                    queue=queue.queue_arn,
                    filter=s3.CfnBucket.NotificationFilterProperty(
                        s3_key=s3.CfnBucket.S3KeyFilterProperty(
                            rules=[s3.CfnBucket.FilterRuleProperty(name="prefix", value=INBOX_PREFIX)]
                        )
                    ),
                )
            ]
        )
        resource.node.add_dependency(queue.node.find_child("Policy"))
