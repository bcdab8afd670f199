"""What the model server needs of S3, as one small protocol, and its boto3 adapter."""

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
"""The condition of a write where nothing may lie yet."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What S3 says of an object. version_id: "" in a bucket without versions. bytes: its size."""

    etag: str
    version_id: str = ""
    bytes: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)


class Storage(Protocol):
    """Every method raises StorageUnavailable and NotAllowed."""

    def look(self, bucket: str, key: str) -> Stored | None:
        """The current object, None when there is none."""

    def read(self, bucket: str, key: str, check: Callable[[Stored], None]) -> bytes:
        """The current object, whatever its version. `check` sees what it is before a byte of it is read, and may raise.
        Raises SourceMissing when there is none."""

    def write(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Mapping[str, str], replaces: str
    ) -> bool:
        """Writes if the current object still has the ETag `replaces` (NEW: if there is none). False when it has not."""


class S3Storage:
    """S3 by boto3. `threads` call it at once, each with a connection of its own."""

    def __init__(self, threads: int) -> None:
        self._s3: Any = boto3.client(
            "s3",
            config=Config(
                max_pool_connections=threads,
                connect_timeout=5,
                read_timeout=30,
                retries={"mode": "standard", "total_max_attempts": 4},
            ),
        )

    def look(self, bucket: str, key: str) -> Stored | None:
        with _translated():
            try:
                return _stored(self._s3.head_object(Bucket=bucket, Key=key))
            except ClientError as error:
                if _status(error) == 404:
                    return None
                raise

    def read(self, bucket: str, key: str, check: Callable[[Stored], None]) -> bytes:
        with _translated():
            try:
                answer = self._s3.get_object(Bucket=bucket, Key=key)
            except ClientError as error:
                if _status(error) == 404:
                    raise SourceMissing(f"There is no object {key!r} in the bucket {bucket!r}.") from error
                raise
            with closing(answer["Body"]) as body:  # its own `with` gives the raw stream, which checks no length
                check(_stored(answer))
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
                # 412: another lies there. 409: two write at this moment. 404: what was to be replaced is gone.
                if _status(error) in (404, 409, 412) and _code(error) != "NoSuchBucket":
                    return False
                raise
        return True


def _stored(answer: Mapping[str, Any]) -> Stored:
    version = answer.get("VersionId") or ""
    return Stored(
        etag=answer["ETag"].strip('"'),
        version_id="" if version == "null" else version,
        bytes=int(answer["ContentLength"]),
        metadata=answer.get("Metadata") or {},
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Foreign errors as ours: refused is NotAllowed; throttled, broken or out of reach is StorageUnavailable."""
    try:
        yield
    except MaskdropError:
        raise
    except ClientError as error:
        if _status(error) in (401, 403) or _code(error) in ("AccessDenied", "AllAccessDisabled"):
            raise NotAllowed("The model server may not use this object or bucket.") from error
        raise StorageUnavailable(f"S3 answered {_code(error)}.") from error
    except (BotoCoreError, OSError) as error:  # OSError: the connection broke while the body was read
        raise StorageUnavailable(f"S3 is out of reach ({type(error).__name__}).") from error


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
