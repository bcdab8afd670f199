"""The files of `maskdrop serve`: uploads, backgrounds and results, in a folder, by bucket and key as in S3.

A file's name is the SHA-256 of its bucket and key, so that no key leaves the folder. The database has the metadata.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import disk_usage
from urllib.parse import quote

from maskdrop.errors import NotAllowed, SourceMissing, StorageUnavailable
from maskdrop.services import Form, Stored
from maskdrop.wire import RESULT_OF
from sagemaker_model.serving.storage import NEW, StoredObject
from standalone.database import Database

FOLDER = "files"

RESERVED = 16 * 1024 * 1024
"""Bytes of the disk that files leave free for the database: keys, limits, and the deletion of jobs and files."""

PATH = "/v1/files"
"""Path of the stored files: `/v1/files/<bucket>/<key>?expires=…&signature=…`."""


class Files:
    """A store of objects. clock: returns the current time in Unix seconds. Methods raise StorageUnavailable and
    TableUnavailable."""

    def __init__(self, folder: Path, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._database, self._clock = folder / FOLDER, database, clock

    def head(self, bucket: str, key: str) -> StoredObject | None:
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT etag, bytes, metadata FROM objects WHERE bucket = ? AND key = ?", (bucket, key)
            ).fetchone()
        return StoredObject(row[0], "", row[1], json.loads(row[2])) if row else None

    def content_type(self, bucket: str, key: str) -> str:
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT content_type FROM objects WHERE bucket = ? AND key = ?", (bucket, key)
            ).fetchone()
        return str(row[0]) if row else ""

    def path(self, bucket: str, key: str) -> Path:
        name = hashlib.sha256(f"{bucket}/{key}".encode()).hexdigest()
        return self._folder / name[:2] / name

    def read(self, bucket: str, key: str) -> bytes:
        """Raises SourceMissing if there is no object."""
        try:
            return self.path(bucket, key).read_bytes()
        except FileNotFoundError:
            raise SourceMissing(f"There is no object {key!r} in the bucket {bucket!r}.") from None
        except OSError as error:
            raise StorageUnavailable(f"A stored file cannot be read: {error.strerror}.") from error

    def write(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Mapping[str, str], replaces: str = ""
    ) -> bool:
        """Writes an object, if the current one has the ETag `replaces`, for NEW if there is none, for "" in any case.
        Returns whether it has written."""
        etag = hashlib.sha256(body).hexdigest()
        path = self.path(bucket, key)
        part = path.with_suffix(f".{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if disk_usage(path.parent).free < len(body) + RESERVED:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            part.write_bytes(body)
            with self._database.transaction() as connection:
                row = connection.execute(
                    "SELECT etag FROM objects WHERE bucket = ? AND key = ?", (bucket, key)
                ).fetchone()
                if replaces and (row is not None if replaces == NEW else row is None or row[0] != replaces):
                    return False
                part.replace(path)
                connection.execute(
                    "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (bucket, key, etag, len(body), content_type, json.dumps(dict(metadata)), self._clock()),
                )
        except OSError as error:
            raise StorageUnavailable(f"A file cannot be written: {error.strerror}.") from error
        finally:
            part.unlink(missing_ok=True)
        return True

    def delete(self, bucket: str, key: str) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM objects WHERE bucket = ? AND key = ?", (bucket, key))
        try:
            self.path(bucket, key).unlink(missing_ok=True)
        except OSError as error:
            raise StorageUnavailable(f"A stored file cannot be deleted: {error.strerror}.") from error

    def delete_older(self, seconds: float, prefix: str = "", *, others: bool = False) -> int:
        """Deletes objects that were written longer ago. Returns their number.

        prefix: only objects whose key begins with it. others: only those whose key does not.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT bucket, key FROM objects WHERE written_at < ?", (self._clock() - seconds,)
            ).fetchall()
        old = [(bucket, key) for bucket, key in rows if key.startswith(prefix) is not others]
        for bucket, key in old:
            self.delete(bucket, key)
        return len(old)

    def keys(self, bucket: str, prefix: str) -> list[str]:
        """Returns the keys of a bucket that begin with `prefix`, sorted."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT key FROM objects WHERE bucket = ? ORDER BY key", (bucket,)).fetchall()
        return [str(key) for (key,) in rows if key.startswith(prefix)]


class ModelStorage:
    """Implements `sagemaker_model.serving.storage.Storage`, for the pipeline."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def head(self, bucket: str, key: str) -> StoredObject | None:
        return self._files.head(bucket, key)

    def read(self, bucket: str, key: str, check: Callable[[StoredObject], None]) -> bytes:
        stored = self._files.head(bucket, key)
        if stored is None:
            raise SourceMissing(f"There is no object {key!r} in the bucket {bucket!r}.")
        check(stored)
        return self._files.read(bucket, key)

    def write(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Mapping[str, str], replaces: str
    ) -> bool:
        return self._files.write(bucket, key, body, content_type, metadata, replaces)


class ApiStorage:
    """Implements `maskdrop.services.Storage`, for the handlers of the API.

    secret: signs the URLs of files. url: URL of the server, as its callers reach it.
    """

    def __init__(self, files: Files, secret: bytes, url: str) -> None:
        self._files, self._secret, self._url = files, secret, url.rstrip("/")

    def head(self, bucket: str, key: str) -> Stored | None:
        stored = self._files.head(bucket, key)
        return Stored(stored.etag, stored.bytes, stored.metadata.get(RESULT_OF, "")) if stored else None

    def delete(self, bucket: str, key: str) -> None:
        self._files.delete(bucket, key)

    def form(self, bucket: str, key: str, content_type: str, *, bytes_max: int, seconds: int) -> Form:
        expires = str(int(time.time()) + seconds)
        fields = {"Content-Type": content_type, "key": key, "expires": expires, "bytes_max": str(bytes_max)}
        return Form(f"{self._url}{PATH}/{bucket}", fields | {"signature": self._sign("form", bucket, *fields.values())})

    def read(self, bucket: str, key: str) -> bytes:
        return self._files.read(bucket, key)

    def write(self, bucket: str, key: str, body: bytes, content_type: str) -> None:
        self._files.write(bucket, key, body, content_type, {})

    def copy(self, bucket: str, key: str, to_bucket: str, to_key: str) -> None:
        self.write(to_bucket, to_key, self._files.read(bucket, key), self._files.content_type(bucket, key))

    def tags(self, bucket: str, key: str) -> tuple[str, dict[str, str]]:
        """No tags: `serve` has no malware scan."""
        if (stored := self._files.head(bucket, key)) is None:
            raise SourceMissing(f"The object s3://{bucket}/{key} does not exist.")
        return stored.etag, {}

    def link(self, bucket: str, key: str, *, seconds: int) -> str:
        expires = str(int(time.time()) + seconds)
        signature = self._sign("get", bucket, key, expires)
        return f"{self._url}{PATH}/{bucket}/{quote(key)}?expires={expires}&signature={signature}"

    def linked(self, bucket: str, key: str, expires: str, signature: str) -> tuple[bytes, str]:
        """Returns the content and type of a file whose URL `link` returned. Raises NotAllowed, SourceMissing."""
        if not self._valid(expires, signature, "get", bucket, key, expires):
            raise NotAllowed("The URL of the file is not valid, or has expired; request the job or result again.")
        return self._files.read(bucket, key), self._files.content_type(bucket, key)

    def store_upload(self, bucket: str, fields: Mapping[str, str], body: bytes) -> None:
        """Stores the file of a form that `form` returned. Raises NotAllowed."""
        signed = [fields.get(name, "") for name in ("Content-Type", "key", "expires", "bytes_max")]
        if not self._valid(signed[2], fields.get("signature", ""), "form", bucket, *signed):
            raise NotAllowed("The upload form is not valid, or has expired; request a new one (POST /v1/uploads).")
        if not 0 < len(body) <= int(signed[3]):
            raise NotAllowed(f"The file must have 1 to {int(signed[3]):,} bytes; got {len(body):,}.")
        self.write(bucket, signed[1], body, signed[0])

    def _sign(self, *parts: str) -> str:
        return hmac.new(self._secret, "\n".join(parts).encode(), hashlib.sha256).hexdigest()

    def _valid(self, expires: str, signature: str, *parts: str) -> bool:
        """Whether the signature is that of `parts` and has not expired."""
        valid = hmac.compare_digest(self._sign(*parts).encode(), signature.encode())
        return valid and expires.isdecimal() and int(expires) >= time.time()


def signing_secret(folder: Path) -> bytes:
    """Returns the secret that signs the URLs of files, which the first start creates in `folder`."""
    path = folder / "secret"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        secret = secrets.token_bytes(32)
        file.write(secret)
    return secret
