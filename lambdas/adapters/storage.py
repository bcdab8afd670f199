"""Objects in S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from lambdas.adapters.border import as_error, code_of
from maskdrop.errors import SourceMissing, StorageUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


class S3Storage:
    def __init__(self, client: S3Client) -> None:
        self._client = client

    def read(self, bucket: str, key: str) -> bytes:
        with as_error(StorageUnavailable, "Reading an object"):
            try:
                return self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
            except ClientError as error:
                if code_of(error) == "NoSuchKey":
                    raise SourceMissing(f"There is no object s3://{bucket}/{key}.") from error
                raise

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        with as_error(StorageUnavailable, "Writing an object"):
            self._client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type)

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        with as_error(StorageUnavailable, "Signing an address"):
            return self._client.generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=seconds
            )
