"""The S3 buckets: `inbox` receives photos, `results` stores results and bundles, `logs` stores access logs."""

from __future__ import annotations

from typing import cast

from aws_cdk import Aws, CfnResource, Duration, RemovalPolicy, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from infra.nag import acknowledge
from infra.retention import data_policy, log_group
from infra.stages import Stage
from maskdrop.edit import EDITS_PREFIX
from maskdrop.flow import EDITS_KEPT
from maskdrop.job import INBOX_PREFIX, RESULTS_PREFIX, UPLOADS_PREFIX
from maskdrop.review import TRAINING_PREFIX

BUNDLES_PREFIX = "bundles/"

EMPTYING = "AutoDeleteObjectsCustomResource"
"""ID of the custom resource that the CDK adds to a bucket with auto_delete_objects. Its deletion empties the bucket."""


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
        self.logs.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowAccessLogs",
                actions=["s3:PutObject"],
                principals=[iam.ServicePrincipal("logging.s3.amazonaws.com")],
                resources=[self.logs.arn_for_objects("*")],
                conditions=self._from_own_buckets(),
            )
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
                # With 0, those of an earlier deployment are deleted: S3 accepts no shorter time.
                s3.LifecycleRule(prefix=TRAINING_PREFIX, expiration=Duration.days(max(1, stage.keep_corrections_days))),
                # A failed edit is retried from its stage for a day less.
                s3.LifecycleRule(prefix=EDITS_PREFIX, expiration=Duration.days(EDITS_KEPT.days + 1)),
            ],
        )
        self._notify(self.inbox, jobs)
        if not stage.keep_data:
            self._empty_logs_last()
            self._limit_emptying(stage)

    def _bucket(self, name: str, *, rules: list[s3.LifecycleRule], versioned: bool = False) -> s3.Bucket:
        logs = None if name == "Logs" else self.logs
        bucket = s3.Bucket(
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
            versioned=versioned,
        )
        if logs:
            # Not by the CDK property: it adds a policy that names this bucket, which would have to exist before it.
            resource = cast(s3.CfnBucket, bucket.node.default_child)
            resource.logging_configuration = s3.CfnBucket.LoggingConfigurationProperty(
                destination_bucket_name=logs.bucket_name, log_file_prefix=f"{name.lower()}/"
            )
            resource.node.add_dependency(cast(Construct, logs.policy))
        return bucket

    def _from_own_buckets(self) -> dict[str, dict[str, str]]:
        """Conditions for requests of S3 on behalf of every bucket name that this stack can generate. A policy that
        names a bucket could not exist before it."""
        return {"StringEquals": {"aws:SourceAccount": Aws.ACCOUNT_ID}, "ArnLike": {"aws:SourceArn": self._own_buckets}}

    @property
    def _own_buckets(self) -> str:
        """ARN of every bucket name that this stack can generate."""
        return f"arn:{Aws.PARTITION}:s3:::{Stack.of(self).stack_name.lower()}-*"

    def _empty_logs_last(self) -> None:
        """Makes CloudFormation delete the other buckets before it empties the bucket of access logs: their deletion is
        logged too. S3 delivers later logs to no bucket without a policy."""
        for bucket in (self.inbox, self.results):
            bucket.node.add_dependency(self.logs.node.find_child(EMPTYING))

    def _limit_emptying(self, stage: Stage) -> None:
        """Gives the function that empties the buckets a log group. The CDK would let Lambda create one that stays.

        It first reads the tag that allows it to empty a bucket. When `keep_data` is set, the bucket's policy loses that
        permission before the function is called, which would then fail: its role has the permission too.
        """
        provider = Stack.of(self).node.find_child("Custom::S3AutoDeleteObjectsCustomResourceProvider")
        group = log_group(self, "EmptyingLogs", stage=stage, name=f"/maskdrop/{stage.name}/empty-buckets")
        cast(CfnResource, provider.node.find_child("Handler")).add_property_override(
            "LoggingConfig", {"LogGroup": group.log_group_name}
        )
        role = cast(CfnResource, provider.node.find_child("Role"))
        role.add_property_deletion_override("ManagedPolicyArns")
        statements = [
            {
                "Effect": "Allow",
                "Action": ["logs:CreateLogStream", "logs:PutLogEvents"],
                "Resource": group.log_group_arn,
            },
            {"Effect": "Allow", "Action": ["s3:GetBucketTagging"], "Resource": self._own_buckets},
        ]
        document = {"Version": "2012-10-17", "Statement": statements}
        role.add_property_override("Policies", [{"PolicyName": "Emptying", "PolicyDocument": document}])

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
        queue.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AllowS3Notifications",
                actions=["sqs:SendMessage"],
                principals=[iam.ServicePrincipal("s3.amazonaws.com")],
                resources=[queue.queue_arn],
                conditions=self._from_own_buckets(),
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
