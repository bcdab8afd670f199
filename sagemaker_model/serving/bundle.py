"""Marks a bundle as started, and reads the source and writes the result of each of its images in S3.

Bundles may arrive more than once, late, and two at a time. So the metadata of a result hold the id of its job and the
sequencer of its source, and every write is conditional on the object that it replaces:

- A job that has its result already gets its outcome from that result.
- The result of an older photo never replaces the result of a newer one.
"""

from __future__ import annotations

import hashlib
import json

from maskdrop.errors import SourceReplaced, StorageUnavailable
from maskdrop.job import Result, Source, is_newer
from maskdrop.output import CONTENT_TYPE
from maskdrop.wire import RESULT_OF, STARTED_PREFIX, Bundle, Item, Outcome, Overflow
from sagemaker_model.cutout import Cutout
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.serving.storage import NEW, Storage, StoredObject

JOB, SEQUENCER, OUTCOME = RESULT_OF, "maskdrop-sequencer", "maskdrop-outcome"
"""Metadata keys of a result in S3."""

WARNINGS_MAX = 1000
"""Characters of warnings stored with a result: S3 allows 2,048 bytes of metadata."""

WRITES_MAX = 8
"""Conditional writes of one result that may fail in a row before StorageUnavailable is raised."""


def mark_started(bundle: Bundle, storage: Storage) -> None:
    """Writes an empty object for a bundle, next to its results: from now on its attempt counts, even if it crashes the
    container. Raises StorageUnavailable, NotAllowed."""
    if bundle.items:
        results = bundle.items[0].result.bucket
        storage.write(results, f"{STARTED_PREFIX}{bundle.id}", b"", "application/octet-stream", {}, NEW)


class ResultWriter:
    """Writes the result of an item, on condition that the object at its key has not changed since `existing`."""

    def __init__(self, item: Item, storage: Storage) -> None:
        self._item = item
        self._storage = storage
        self._replaces = NEW

    def existing(self) -> Outcome | None:
        """Returns the outcome of the job's existing result, None if it has none.

        Raises SourceReplaced if the key holds the result of a newer photo.
        """
        stored = self._storage.head(self._item.result.bucket, self._item.result.key)
        if stored is None:
            self._replaces = NEW
            return None
        if stored.metadata.get(JOB) == self._item.id and OUTCOME in stored.metadata:
            return _read_outcome(self._item, stored)
        if is_newer(stored.metadata.get(SEQUENCER, ""), self._item.source.sequencer):
            raise SourceReplaced(_REPLACED)
        self._replaces = stored.etag
        return None

    def write(self, cutout: Cutout) -> Outcome:
        """Writes the result, unless the job's result exists already. Raises SourceReplaced, StorageUnavailable."""
        outcome = _outcome(self._item, cutout)
        metadata = {
            JOB: self._item.id,
            SEQUENCER: self._item.source.sequencer,
            OUTCOME: _serialise_outcome(outcome),
        }
        for _ in range(WRITES_MAX):
            if self._storage.write(
                self._item.result.bucket,
                self._item.result.key,
                cutout.data,
                CONTENT_TYPE[cutout.format],
                metadata,
                self._replaces,
            ):
                return outcome
            if existing := self.existing():
                return existing
        raise StorageUnavailable(f"The result object in S3 changed during each of {WRITES_MAX} writes: try again.")


_REPLACED = "A newer version replaced the source before it was processed."


def read_source(source: Source, storage: Storage, limits: Limits) -> bytes:
    """Reads the current object, if it is still the version of the job; so old versions need no permission.

    Raises SourceMissing, SourceReplaced, and EmptyFile or FileTooLarge before any byte is read.
    """

    def check(stored: StoredObject) -> None:
        if source.version_id not in ("", stored.version_id, stored.etag):
            raise SourceReplaced(_REPLACED)
        limits.check_bytes(stored.bytes)

    return storage.read(source.bucket, source.key, check)


def write_overflow(cutout: Cutout, overflow: Overflow, storage: Storage) -> Result:
    """Writes a result that is too large for its response to S3. An object that exists there is kept.

    An existing object is the same result, of an earlier attempt. Raises StorageUnavailable, NotAllowed.
    """
    storage.write(overflow.bucket, overflow.key, cutout.data, CONTENT_TYPE[cutout.format], {}, NEW)
    return _result(overflow.bucket, overflow.key, cutout)


def _outcome(item: Item, cutout: Cutout) -> Outcome:
    return Outcome(
        id=item.id,
        engine=item.options.engine,
        result=_result(item.result.bucket, item.result.key, cutout),
        subject=cutout.subject,
        warnings=cutout.warnings,
        timings=cutout.timings,
    )


def _result(bucket: str, key: str, cutout: Cutout) -> Result:
    return Result(
        bucket=bucket,
        key=key,
        width=cutout.width,
        height=cutout.height,
        bytes=len(cutout.data),
        sha256=hashlib.sha256(cutout.data).hexdigest(),
        format=cutout.format,
    )


def _serialise_outcome(outcome: Outcome) -> str:
    """Returns an outcome as ASCII JSON for the metadata, without its bucket and key, which may be long."""
    data = outcome.to_json()
    data["result"] = {name: value for name, value in data["result"].items() if name not in ("bucket", "key")}
    while len(json.dumps(data["warnings"])) > WARNINGS_MAX:
        data["warnings"].pop()
    return json.dumps(data, separators=(",", ":"))


def _read_outcome(item: Item, stored: StoredObject) -> Outcome:
    data = json.loads(stored.metadata[OUTCOME])
    data["result"] |= {"bucket": item.result.bucket, "key": item.result.key}
    return Outcome.from_json(data)
