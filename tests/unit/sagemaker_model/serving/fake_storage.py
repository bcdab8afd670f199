"""A fake S3 in memory that implements `sagemaker_model.serving.storage.Storage`."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from maskdrop.errors import MaskdropError, SourceMissing
from sagemaker_model.serving.storage import NEW, StoredObject


@dataclass
class FakeStorage:
    """before_write: called once before the next write, to simulate a concurrent writer. broken: raised by reads."""

    objects: dict[tuple[str, str], tuple[StoredObject, bytes]] = field(default_factory=dict)
    writes: int = 0
    reads: int = 0
    broken: MaskdropError | None = None
    before_write: Callable[[], object] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, bucket: str, key: str, body: bytes, **about: object) -> StoredObject:
        stored = replace(StoredObject(etag=hashlib.sha256(body).hexdigest()[:32], bytes=len(body)), **about)  # type: ignore[arg-type]
        self.objects[bucket, key] = stored, body
        return stored

    def head(self, bucket: str, key: str) -> StoredObject | None:
        if self.broken:
            raise self.broken
        found = self.objects.get((bucket, key))
        return found and found[0]

    def read(self, bucket: str, key: str, check: Callable[[StoredObject], None]) -> bytes:
        if self.broken:
            raise self.broken
        if (bucket, key) not in self.objects:
            raise SourceMissing(f"There is no object {key!r} in the bucket {bucket!r}.")
        stored, body = self.objects[bucket, key]
        check(stored)
        self.reads += 1
        return body

    def write(
        self, bucket: str, key: str, body: bytes, content_type: str, metadata: Mapping[str, str], replaces: str
    ) -> bool:
        if self.before_write:
            concurrent = self.before_write
            self.before_write = None
            concurrent()
        with self._lock:
            found = self.objects.get((bucket, key))
            if (found[0].etag if found else NEW) != replaces:
                return False
            self.put(bucket, key, body, metadata=dict(metadata))
            self.writes += 1
            return True
