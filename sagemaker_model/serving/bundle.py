"""One image of a bundle: read from S3, worked, written back once.

Bundles come more than once, late, and two at a time. The result therefore carries the id of its job and the sequencer
of its source, and every write names what it replaces: a job that has its result is answered from it, and an older
photo's result never takes the place of a newer one's.
"""

from __future__ import annotations

import hashlib
import json

from maskdrop.errors import SourceReplaced, StorageUnavailable
from maskdrop.job import Result, Source, is_newer
from maskdrop.output import CONTENT_TYPE
from maskdrop.wire import RESULT_OF, Item, Outcome, Overflow
from sagemaker_model.cutout import Cutout
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.serving.storage import NEW, Storage, Stored

JOB, SEQUENCER, OUTCOME = RESULT_OF, "maskdrop-sequencer", "maskdrop-outcome"

WARNINGS_MAX = 1000
"""Characters of warnings kept with a result: S3 allows 2,048 bytes of metadata."""

WRITES_MAX = 8
"""Lost races in a row, after which something else is wrong."""


class Place:
    """Where an item's result goes, and what lay there when it was last looked at."""

    def __init__(self, item: Item, storage: Storage) -> None:
        self._item = item
        self._storage = storage
        self._replaces = NEW

    def look(self) -> Outcome | None:
        """The outcome when the job has its result already. Raises SourceReplaced when a newer photo has one."""
        stored = self._storage.look(self._item.result.bucket, self._item.result.key)
        if stored is None:
            self._replaces = NEW
            return None
        if stored.metadata.get(JOB) == self._item.id and OUTCOME in stored.metadata:
            return _outcome_of(self._item, stored)
        if is_newer(stored.metadata.get(SEQUENCER, ""), self._item.source.sequencer):
            raise SourceReplaced(_REPLACED)
        self._replaces = stored.etag
        return None

    def write(self, cutout: Cutout) -> Outcome:
        """Puts the result there, or finds that it is there. Raises SourceReplaced, StorageUnavailable."""
        outcome = _outcome(self._item, cutout)
        metadata = {
            JOB: self._item.id,
            SEQUENCER: self._item.source.sequencer,
            OUTCOME: _packed(outcome),
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
            if done := self.look():
                return done
        raise StorageUnavailable("The result's place in S3 kept changing while it was written.")


_REPLACED = "The source was replaced by a newer one before it was worked."


def read_source(source: Source, storage: Storage, limits: Limits) -> bytes:
    """The current object, if it still is the one that the job was made for: so no right to old versions is needed.
    Raises SourceMissing, SourceReplaced, EmptyFile or FileTooLarge, the last two before a byte is read."""

    def check(stored: Stored) -> None:
        if source.version_id not in ("", stored.version_id, stored.etag):
            raise SourceReplaced(_REPLACED)
        limits.check_bytes(stored.bytes)

    return storage.read(source.bucket, source.key, check)


def put_aside(cutout: Cutout, overflow: Overflow, storage: Storage) -> Result:
    """Writes the result of one image that is too large for its answer. What lies there is the same result, of an
    earlier try, and stays. Raises StorageUnavailable, NotAllowed."""
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


def _packed(outcome: Outcome) -> str:
    """An outcome as ASCII without its place, which may be long and is where it lies anyhow."""
    data = outcome.to_json()
    data["result"] = {name: value for name, value in data["result"].items() if name not in ("bucket", "key")}
    while len(json.dumps(data["warnings"])) > WARNINGS_MAX:
        data["warnings"].pop()
    return json.dumps(data, separators=(",", ":"))


def _outcome_of(item: Item, stored: Stored) -> Outcome:
    data = json.loads(stored.metadata[OUTCOME])
    data["result"] |= {"bucket": item.result.bucket, "key": item.result.key}
    return Outcome.from_json(data)
