"""Marks a bundle as started, and reads the source and writes the result of each of its images in S3.

Bundles may arrive more than once, late, and two at a time. So the metadata of a result hold the id of its job and the
sequencer of its source, and every write is conditional on the object that it replaces:

- A job that has its result already gets its outcome from that result.
- The result of an older photo never replaces the result of a newer one.
- Of several results, the one at the item's own key is written last. The metadata of each other one hold its own record.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

from maskdrop.edit import alpha_key, image_key, mask_key
from maskdrop.errors import SourceReplaced, StorageUnavailable
from maskdrop.job import Result, ResultItem, Source, is_newer, item_key
from maskdrop.wire import RESULT_OF, STARTED_PREFIX, Bundle, Destination, Item, Outcome, Overflow
from sagemaker_model.cutout import Cutout, Part
from sagemaker_model.imaging.pixels import Limits
from sagemaker_model.serving.storage import NEW, Storage, StoredObject

JOB, SEQUENCER, OUTCOME, COUNT = RESULT_OF, "maskdrop-sequencer", "maskdrop-outcome", "maskdrop-results"
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
    """Writes the results of an item, on condition that the object at its key has not changed since `existing`."""

    def __init__(self, item: Item, storage: Storage) -> None:
        self._item = item
        self._storage = storage
        self._replaces = NEW

    def existing(self) -> Outcome | None:
        """Returns the outcome of the job's existing result, None if it has none.

        For an edit in the stage "segment", the stored alpha is the result. Raises SourceReplaced if the key holds the
        result of a newer photo.
        """
        bucket, key = self._item.result.bucket, self._item.result.key
        if self._prepares_edit:
            stored = self._storage.head(bucket, alpha_key(self._item.id))
            return _read_outcome(self._item, stored) if stored and OUTCOME in stored.metadata else None
        stored = self._storage.head(bucket, key)
        self._replaces = self._replaceable(stored)
        if stored is None or not self._is_own(stored):
            return None
        outcome = _read_outcome(self._item, stored)
        count = int(stored.metadata.get(COUNT, 0))
        results = [self._read_part(number) for number in range(1, count + 1)]
        return None if None in results else replace(outcome, results=tuple(one for one in results if one))

    def write(self, cutout: Cutout) -> Outcome:
        """Writes the results, unless they exist already. Raises SourceReplaced, StorageUnavailable."""
        if cutout.edit:
            return self._write_edit(cutout)
        parts = [_result_item(self._item, number, part, cutout.format) for number, part in enumerate(cutout.parts, 1)]
        for part, record in zip(cutout.parts, parts, strict=True):
            metadata = {OUTCOME: _serialise_item(record)}
            self._put(record.result.key, part.data, cutout.content_type, metadata, NEW)
        outcome = _outcome(self._item, cutout)
        metadata = {OUTCOME: _serialise_outcome(outcome), COUNT: str(len(parts))}
        written = self._put(self._item.result.key, cutout.data, cutout.content_type, metadata, self._replaces)
        if not written and (existing := self.existing()):
            return existing
        return replace(outcome, results=tuple(parts))

    @property
    def _prepares_edit(self) -> bool:
        return self._item.options.edit is not None and self._item.stage == "segment"

    def _put(self, key: str, body: bytes, kind: str, metadata: dict[str, str], replaces: str) -> bool:
        """Writes one object with the metadata of this job. False if this job has written it before."""
        bucket = self._item.result.bucket
        metadata = {JOB: self._item.id, SEQUENCER: self._item.source.sequencer, **metadata}
        for _ in range(WRITES_MAX):
            if self._storage.write(bucket, key, body, kind, metadata, replaces):
                return True
            stored = self._storage.head(bucket, key)
            replaces = self._replaceable(stored)
            if stored and self._is_own(stored):
                return False
        raise StorageUnavailable(f"The result object in S3 changed during each of {WRITES_MAX} writes: try again.")

    def _replaceable(self, stored: StoredObject | None) -> str:
        """Returns the condition of a write over `stored`. Raises SourceReplaced if it is of a newer photo."""
        if stored is None:
            return NEW
        if not self._is_own(stored) and is_newer(stored.metadata.get(SEQUENCER, ""), self._item.source.sequencer):
            raise SourceReplaced
        return stored.etag

    def _is_own(self, stored: StoredObject) -> bool:
        return stored.metadata.get(JOB) == self._item.id and OUTCOME in stored.metadata

    def _read_part(self, number: int) -> ResultItem | None:
        key = item_key(self._item.result.key, number)
        stored = self._storage.head(self._item.result.bucket, key)
        if stored is None or not self._is_own(stored):
            return None
        data = json.loads(stored.metadata[OUTCOME])
        result = {**data.pop("file"), "bucket": self._item.result.bucket, "key": key}
        return ResultItem.from_json({**data, **_candidate(self._item, number), "result": result})

    def _write_edit(self, cutout: Cutout) -> Outcome:
        """Writes the input of the editor. The alpha is written last: `existing` looks for it."""
        if cutout.edit is None:
            raise ValueError("The cut-out has no edit.")
        outcome = replace(_outcome(self._item, cutout), result=None, next_stage="edit")
        job, metadata = self._item.id, {OUTCOME: _serialise_outcome(outcome)}
        self._put(image_key(job), cutout.edit.image, "image/jpeg", {OUTCOME: ""}, NEW)
        self._put(mask_key(job), cutout.edit.mask, "image/png", {OUTCOME: ""}, NEW)
        self._put(alpha_key(job), cutout.edit.alpha, "image/png", metadata, NEW)
        return outcome


def read_source(source: Source, storage: Storage, limits: Limits) -> bytes:
    """Reads the current object, if it is still the version of the job; so old versions need no permission.

    Raises SourceMissing, SourceReplaced, and EmptyFile or FileTooLarge before any byte is read.
    """

    def check(stored: StoredObject) -> None:
        if source.version_id not in ("", stored.version_id, stored.etag):
            raise SourceReplaced
        limits.check_bytes(stored.bytes)

    return storage.read(source.bucket, source.key, check)


def write_overflow(cutout: Cutout, overflow: Overflow, storage: Storage) -> tuple[Result, tuple[ResultItem, ...]]:
    """Writes results that are too large or too many for their response to S3. Objects that exist there are kept.

    An existing object is the same result, of an earlier attempt. Raises StorageUnavailable, NotAllowed.
    """
    place = Destination(overflow.bucket, overflow.key)
    items = []
    for number, part in enumerate(cutout.parts, 1):
        one = _part_record(place, number, part, cutout.format)
        storage.write(one.result.bucket, one.result.key, part.data, cutout.content_type, {}, NEW)
        items.append(one)
    storage.write(overflow.bucket, overflow.key, cutout.data, cutout.content_type, {}, NEW)
    return _result(overflow.bucket, overflow.key, cutout, cutout.format), tuple(items)


def _outcome(item: Item, cutout: Cutout) -> Outcome:
    return Outcome(
        id=item.id,
        engine=cutout.engine or item.options.engine,
        result=_result(item.result.bucket, item.result.key, cutout, cutout.format),
        subject=cutout.subject,
        warnings=cutout.warnings,
        timings=cutout.timings,
        cost_usd=cutout.cost_usd,
    )


def _result(bucket: str, key: str, image: Cutout | Part, name: str) -> Result:
    return Result(
        bucket=bucket,
        key=key,
        width=image.width,
        height=image.height,
        bytes=len(image.data),
        sha256=hashlib.sha256(image.data).hexdigest(),
        format=name,
    )


def _result_item(item: Item, number: int, part: Part, name: str) -> ResultItem:
    return replace(_part_record(item.result, number, part, name), **_candidate(item, number))


def _part_record(place: Destination, number: int, part: Part, name: str) -> ResultItem:
    result = _result(place.bucket, item_key(place.key, number), part, name)
    return ResultItem(result, part.label, part.score, part.box)


def _candidate(item: Item, number: int) -> dict[str, Any]:
    """Returns prompt and seed of a candidate; nothing for an instance."""
    if item.stage != "compose":
        return {}
    candidate = item.candidates[number - 1]
    return {"prompt": candidate.prompt, "seed": candidate.seed}


def _serialise_item(record: ResultItem) -> str:
    """Returns a record as ASCII JSON for its metadata, without its bucket, key and prompt, which may be long."""
    data = record.to_json()
    file = {name: value for name, value in data.pop("result").items() if name not in ("bucket", "key")}
    return json.dumps({**data, "prompt": "", "file": file}, separators=(",", ":"))


def _serialise_outcome(outcome: Outcome) -> str:
    """Returns an outcome as ASCII JSON for the metadata, without its bucket and key, which may be long."""
    data = {name: value for name, value in outcome.to_json().items() if name != "results"}
    if data["result"]:
        data["result"] = {name: value for name, value in data["result"].items() if name not in ("bucket", "key")}
    while len(json.dumps(data["warnings"])) > WARNINGS_MAX:
        data["warnings"].pop()
    return json.dumps(data, separators=(",", ":"))


def _read_outcome(item: Item, stored: StoredObject) -> Outcome:
    data = json.loads(stored.metadata[OUTCOME])
    if data["result"]:
        data["result"] |= {"bucket": item.result.bucket, "key": item.result.key}
    return Outcome.from_json(data)
