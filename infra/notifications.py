"""The SNS topics that an asynchronous endpoint notifies, and the key that encrypts the topics of the stage."""

from __future__ import annotations

from aws_cdk import RemovalPolicy
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from constructs import Construct


class Notifications(Construct):
    """The topics `completed` and `failed`. They belong to the application, so that they exist without an endpoint.

    key: CloudWatch and SageMaker cannot use the AWS managed key of SNS.
    """

    def __init__(self, scope: Construct, construct_id: str) -> None:
        super().__init__(scope, construct_id)
        self.key = kms.Key(self, "Key", enable_key_rotation=True, removal_policy=RemovalPolicy.DESTROY)
        self.completed = sns.Topic(self, "Completed", master_key=self.key, enforce_ssl=True)
        self.failed = sns.Topic(self, "Failed", master_key=self.key, enforce_ssl=True)
