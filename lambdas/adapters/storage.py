"""Reads, writes and signs objects in S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from lambdas.adapters.errors import code_of, translated_errors
from maskdrop.errors import SourceMissing, StorageUnavailable
from maskdrop.services import Form, Stored
from maskdrop.wire import RESULT_OF

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Storage:
    def __init__(self, client: S3Client) -> None:
        self._client = client

    def head(self, bucket: str, key: str) -> Stored | None:
        with translated_errors(StorageUnavailable, "Reading the metadata of an object"):
            try:
                head = self._client.head_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if code_of(error) in ("404", "NoSuchKey"):  # a response to HEAD has no body with an error code
                    return None
                raise
        version = head.get("VersionId", "null")
        version = head["ETag"].strip('"') if version == "null" else version
        return Stored(version, head["ContentLength"], head["Metadata"].get(RESULT_OF, ""))

    def delete(self, bucket: str, key: str) -> None:
        with translated_errors(StorageUnavailable, "Deleting an object"):
            self._client.delete_object(Bucket=bucket, Key=key)

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Form:
        fields = {"Content-Type": content_type}
        with translated_errors(StorageUnavailable, "Creating a presigned form"):
            signed = self._client.generate_presigned_post(
                bucket, key, Fields=fields, Conditions=[fields, ["content-length-range", 1, bytes_max]],
                ExpiresIn=seconds,
            )  # fmt: skip
        return Form(signed["url"], signed["fields"])

    def read(self, bucket: str, key: str) -> bytes:
        with translated_errors(StorageUnavailable, "Reading an object"):
            try:
                return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
            except ClientError as error:
                if code_of(error) == "NoSuchKey":
                    raise SourceMissing(f"The object s3://{bucket}/{key} does not exist.") from error
                raise

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        with translated_errors(StorageUnavailable, "Writing an object"):
            self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        with translated_errors(StorageUnavailable, "Copying an object"):
            try:
                self._client.copy_object(
                    Bucket=to_bucket,
                    Key=to_key,
                    CopySource={"Bucket": bucket, "Key": key},
                    TaggingDirective="REPLACE",  # without tags: reading those of the source needs a permission
                )
            except ClientError as error:
                if code_of(error) == "NoSuchKey":
                    raise SourceMissing(f"The object s3://{bucket}/{key} does not exist.") from error
                raise

    def tags(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        with translated_errors(StorageUnavailable, "Reading the tags of an object"):
            try:
                tagging = self._client.get_object_tagging(Bucket=bucket, Key=key)
            except ClientError as error:
                if code_of(error) in ("NoSuchKey", "MethodNotAllowed"):  # the second: a delete marker
                    raise SourceMissing(f"The object s3://{bucket}/{key} does not exist.") from error
                raise
        return tagging["VersionId"], {tag["Key"]: tag["Value"] for tag in tagging["TagSet"]}

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        with translated_errors(StorageUnavailable, "Creating a presigned URL"):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
            )
