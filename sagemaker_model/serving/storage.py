"""The protocol of the object storage of the model server, and its adapter to S3 by boto3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from maskdrop.errors import MaskdropError, NotAllowed, SourceMissing, StorageUnavailable

NEW = "*"
"""The condition of a write that must not replace an object."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """The metadata of an object in S3. version_id: "" in a bucket without versioning. bytes: size of the object."""

    etag: str
    version_id: str = ""
    bytes: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


class Storage(Protocol):
    """An object storage with conditional writes. Every method raises StorageUnavailable and NotAllowed."""

    def head(self, bucket: str, key: str) -> StoredObject | None:
        """Returns the metadata of the current object, None if there is no object."""

    def read(self, bucket: str, key: str, check: Callable[[StoredObject], None]) -> bytes:
        """Returns the content of the current object. Raises SourceMissing if there is no object.

        check: called with the object's metadata before any byte is read; it may raise to stop.
        """

    def write(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Mapping[str, str], replaces: str
    ) -> bool:
        """Writes if the current object has the ETag `replaces`, or for NEW if there is no object.

        Returns whether it has written.
        """


class S3Storage:
    """S3 by boto3. threads: number of connections, one for each calling thread. region: None for that of the
    environment."""

    def __init__(self, threads: int, region: str | None = None) -> None:
        self._s3: Any = boto3.client(
            "s3",
            region_name=region,
            config=Config(
                max_pool_connections=threads,
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 4},
            ),
        )

    def require_own(self, bucket: str, account: str) -> None:
        """Raises NotAllowed if the bucket does not exist or belongs to another account. account: 12 digits."""
        try:
            self._s3.head_bucket(Bucket=bucket, ExpectedBucketOwner=account)
        except ClientError as error:
            raise NotAllowed(f"The account {account} has no bucket {bucket!r}; name your own bucket.") from error

    def head(self, bucket: str, key: str) -> StoredObject | None:
        with _translated():
            try:
                return _stored(self._s3.head_object(Bucket=bucket, Key=key))
            except ClientError as error:
                if _status(error) == 404:
                    return None
                raise

    def read(self, bucket: str, key: str, check: Callable[[StoredObject], None]) -> bytes:
        with _translated():
            try:
                response = self._s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if _status(error) == 404:
                    raise SourceMissing(f"There is no object {key!r} in the bucket {bucket!r}.") from error
                raise
            with closing(
                response["Body"]
            ) as body:  # the body's own `with` returns the raw stream, without a length check
                check(_stored(response))
                return bytes(body.read())

    def write(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Mapping[str, str], replaces: str
    ) -> bool:
        condition = {"IfNoneMatch": NEW} if replaces == NEW else {"IfMatch": f'"{replaces}"'}
        with _translated():
            try:
                self._s3.put_object(
                    Bucket=bucket, Key=key, Body=body, ContentType=content_type, Metadata=dict(metadata), **condition
                )
            except ClientError as error:
                # 412: another object exists. 409: a concurrent write. 404: the object to replace is deleted.
                if _status(error) in (404, 409, 412) and _code(error) != "NoSuchBucket":
                    return False
                raise
        return True


def _stored(response: Mapping[str, Any]) -> StoredObject:
    version = response.get("VersionId") or ""
    return StoredObject(
        etag=response["ETag"].strip('"'),
        version_id="" if version == "null" else version,
        bytes=int(response["ContentLength"]),
        metadata=response.get("Metadata") or {},
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Converts errors of botocore: denied access to NotAllowed, all others to StorageUnavailable."""
    try:
        yield
    except MaskdropError:
        raise
    except ClientError as error:
        if _status(error) in (401, 403) or _code(error) in ("AccessDenied", "AllAccessDisabled"):
            raise NotAllowed(
                "The model server has no permission for this object or bucket: check its role and the bucket policy."
            ) from error
        raise StorageUnavailable(f"S3 returned the error {_code(error)}.") from error
    except (BotoCoreError, OSError) as error:  # OSError: the connection broke during the read
        raise StorageUnavailable(f"S3 cannot be reached ({type(error).__name__}).") from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
