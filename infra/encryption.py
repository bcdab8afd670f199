"""How a stage encrypts its data: with keys of AWS, or with the customer managed key `kms_key`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from aws_cdk import App, Aws
from aws_cdk import aws_codebuild as codebuild
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events as events
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sagemaker as sagemaker
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sqs as sqs
from constructs import IConstruct

from infra.stages import Stage

READ, WRITE = "kms:Decrypt", "kms:GenerateDataKey"

KEY_USE: dict[str, tuple[str, ...]] = {
    "s3:GetObject": (READ,),
    "s3:GetObjectVersion": (READ,),
    "s3:PutObject": (READ, WRITE),  # a multipart upload reads its parts
    "sqs:ReceiveMessage": (READ,),
    "sqs:SendMessage": (READ, WRITE),
    "sns:Publish": (READ, WRITE),
    # The key of a table is decrypted for the caller; it was generated when the table was created.
    "dynamodb:GetItem": (READ,),
    "dynamodb:PutItem": (READ,),
    "dynamodb:UpdateItem": (READ,),
    "dynamodb:DeleteItem": (READ,),
    "dynamodb:Query": (READ,),
}
"""IAM action -> what the service does with the key in the name of the caller. Other services that roles call use the
key by its policy (docs/security.md) or not at all."""

LOCAL_STORAGE = ("g4dn", "g5", "g6", "gr6", "g7")
"""Prefixes of instance families with NVMe storage, besides those whose name ends in "d". Hardware of the instance
encrypts it, and SageMaker has refused a key for it."""


def encrypt(app: App, stage: Stage) -> None:
    """Sets `kms_key` on every resource that stores data, and allows the roles in `app` to use it, and to read data of
    `former_kms_keys`.

    Has to run after all stacks are defined. Without keys it changes nothing.
    """
    for node in app.node.find_all():
        if stage.kms_key:
            _set_key(node, stage.kms_key)
        if isinstance(node, iam.Policy):
            actions = [action for one in _statements(node.document) for action in _list(one["Action"])]
            node.add_statements(*key_use(stage, actions))


def _set_key(node: IConstruct, key: str) -> None:
    match node:
        case s3.CfnBucket() if node.logging_configuration:  # S3 writes no access logs to a bucket with SSE-KMS
            node.bucket_encryption = _bucket_encryption(key)
        case dynamodb.CfnTable():
            node.sse_specification = dynamodb.CfnTable.SSESpecificationProperty(
                sse_enabled=True, sse_type="KMS", kms_master_key_id=key
            )
        case sqs.CfnQueue():
            node.kms_master_key_id, node.sqs_managed_sse_enabled = key, None
        case sns.CfnTopic():
            node.kms_master_key_id = key
        case logs.CfnLogGroup():
            node.kms_key_id = key
        case events.CfnEventBus():
            node.kms_key_identifier = key
        case ecr.CfnRepository():
            node.encryption_configuration = ecr.CfnRepository.EncryptionConfigurationProperty(
                encryption_type="KMS", kms_key=key
            )
        case codebuild.CfnProject():
            node.encryption_key = key
        case sagemaker.CfnEndpointConfig():
            _encrypt_endpoint(node, key)


def key_use(stage: Stage, actions: Iterable[str]) -> list[iam.PolicyStatement]:
    """Returns the permissions on the key of the stage, and on its former ones, that `actions` need: each only through
    the service that is called. Empty without a key."""
    services: dict[str, set[str]] = {}
    for action in actions:
        services.setdefault(action.partition(":")[0], set()).update(KEY_USE.get(action, ()))
    return [
        iam.PolicyStatement(
            actions=sorted(allowed),
            resources=keys,
            conditions={"StringEquals": {"kms:ViaService": f"{service}.{Aws.REGION}.{Aws.URL_SUFFIX}"}},
        )
        for service, used in sorted(services.items())
        for keys, allowed in (([stage.kms_key], used), ([*stage.former_kms_keys], used & {READ}))
        if any(keys) and allowed
    ]


def _bucket_encryption(key: str) -> s3.CfnBucket.BucketEncryptionProperty:
    """A bucket key reduces the requests to KMS, and their cost, to a few for each caller."""
    default = s3.CfnBucket.ServerSideEncryptionByDefaultProperty(sse_algorithm="aws:kms", kms_master_key_id=key)
    rule = s3.CfnBucket.ServerSideEncryptionRuleProperty(
        bucket_key_enabled=True, server_side_encryption_by_default=default
    )
    return s3.CfnBucket.BucketEncryptionProperty(server_side_encryption_configuration=[rule])


def _encrypt_endpoint(config: sagemaker.CfnEndpointConfig, key: str) -> None:
    """Encrypts the volumes of the instances, and what an asynchronous endpoint writes."""
    variants = cast(list[sagemaker.CfnEndpointConfig.ProductionVariantProperty], config.production_variants)
    if not any(one.instance_type is None or has_local_storage(one.instance_type) for one in variants):
        config.kms_key_id = key
    if config.async_inference_config:
        config.add_property_override("AsyncInferenceConfig.OutputConfig.KmsKeyId", key)


def has_local_storage(instance_type: str) -> bool:
    """Whether an instance type, such as ml.g6.xlarge, stores data on NVMe drives of its own."""
    family = instance_type.removeprefix("ml.").partition(".")[0]
    return family.startswith(LOCAL_STORAGE) or family.endswith(("d", "dn"))


def _statements(document: iam.PolicyDocument) -> list[Any]:
    return _list((document.to_json() or {"Statement": []})["Statement"])


def _list(one: Any) -> list[Any]:
    return one if isinstance(one, list) else [one]
