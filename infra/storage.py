"""The buckets: photos come into `inbox`, images and bundles lie in `results`, `logs` notes who asked for what."""

from __future__ import annotations

from typing import cast

from aws_cdk import Aws, Duration, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.nag import acknowledge
from infra.stages import Stage
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX

BUNDLES_PREFIX = "bundles/"


class Storage(Construct):
    """Two buckets, so that a result can never be taken for a photo, and a third for their access logs. `sources` are
    others' buckets, whose images may be worked."""

    def __init__(self, scope: Construct, construct_id: str, *, stage: Stage, intake: sqs.Queue) -> None:
        super().__init__(scope, construct_id)
        self._removal_policy = stage.removal_policy
        self.sources = [s3.Bucket.from_bucket_name(self, name, name) for name in stage.source_buckets.split()]
        self._cors = stage.cors.split()
        kept = Duration.days(stage.keep_results_days)
        unfinished = s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1))

        self.logs = self._bucket("Logs", rules=[s3.LifecycleRule(expiration=Duration.days(90))])
        acknowledge(self.logs, "AwsSolutions-S1", "It holds the access logs; logging its own access would never end.")
        self.inbox = self._bucket(
            "Inbox",
            versioned=True,  # a job is made for one version of a photo, even when it is replaced meanwhile
            rules=[
                unfinished,
                s3.LifecycleRule(noncurrent_version_expiration=kept, expired_object_delete_marker=True),
                # A job waits for hours at most; what was dropped is its owner's, what was sent here is ours to clear.
                s3.LifecycleRule(
                    prefix=UPLOADS_PREFIX,
                    expiration=Duration.days(7),
                    noncurrent_version_expiration=Duration.days(1),  # what was deleted is gone
                ),
            ],
        )
        self.results = self._bucket(
            "Results",
            rules=[
                unfinished,
                s3.LifecycleRule(prefix=RESULTS_PREFIX, expiration=kept),
                s3.LifecycleRule(prefix=BUNDLES_PREFIX, expiration=Duration.days(7)),
            ],
        )
        self._announce(self.inbox, intake)

    def _bucket(self, name: str, *, rules: list[s3.LifecycleRule], versioned: bool = False) -> s3.Bucket:
        logs = None if name == "Logs" else self.logs
        return s3.Bucket(
            self,
            name,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            cors=self._pages() if logs else None,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            lifecycle_rules=rules,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=self._removal_policy,
            server_access_logs_bucket=logs,
            server_access_logs_prefix=f"{name.lower()}/" if logs else None,
            versioned=versioned,
        )

    def _pages(self) -> list[s3.CorsRule] | None:
        """Pages that may call the API may use what it hands out: forms to post photos with, addresses of results."""
        methods = [s3.HttpMethods.GET, s3.HttpMethods.POST]
        rule = s3.CorsRule(allowed_methods=methods, allowed_origins=self._cors, allowed_headers=["*"])
        return [rule] if self._cors else None

    def _announce(self, bucket: s3.Bucket, queue: sqs.Queue) -> None:
        """Every object created under inbox/ becomes a message. Written in the bucket itself: CDK's own way needs a
        function that sets it up at deploy time. The queue must let S3 in first, and cannot name a bucket that is not
        there yet: it names all that this stack may make."""
        names = f"arn:{Aws.PARTITION}:s3:::{Stack.of(self).stack_name.lower()}-*"
        queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="PhotosAnnounced",
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
