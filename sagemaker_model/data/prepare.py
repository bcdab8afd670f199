"""Preparation of shards from a dataset: reads its layout, selects, splits, shuffles and resizes records.

An interrupted run, even a killed one, can be resumed and gives the same bytes as an uninterrupted one. A shard depends
only on the recipe and on the position in the order of entries at which it begins. Each shard is written atomically;
then the manifest records its SHA-256 and its number of entries. A resumed run keeps every shard with the recorded
SHA-256, and writes the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from maskdrop.errors import InputError
from sagemaker_model.data import coco, folders, shards, supervisely, voc
from sagemaker_model.data.compose import compose
from sagemaker_model.data.recipe import Kind, Recipe
from sagemaker_model.data.records import LIMITS, SPLITS, BadRecord, Entry, InvalidData, Record, read_file
from sagemaker_model.data.shards import MANIFEST, Sample
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.weights.files import atomic_write
from sagemaker_model.weights.store import digest

ENTRIES_PER_WORKER = 16
"""Entries per worker that are processed at once; their samples are written in order."""


def entries_of(source: Path, recipe: Recipe) -> list[Entry]:
    """Lists the entries of a source in the layout of the recipe's kind. Raises InvalidData."""
    if not source.exists():
        raise InvalidData(f"{source} does not exist.")
    readers: dict[Kind, Callable[[], list[Entry]]] = {
        "supervisely": lambda: supervisely.entries(source, recipe.classes, recipe.subject or "all"),
        "voc": lambda: voc.entries(source, recipe.classes),
        "coco": lambda: coco.entries(source, recipe.classes, recipe.subject or "central"),
        "folders": lambda: folders.entries(source),
    }
    if entries := readers[recipe.kind]():
        return entries
    raise InvalidData(f"{source} has no images.")


def prepare(
    entries: Sequence[Entry],
    recipe: Recipe,
    out: Path,
    *,
    backgrounds: Sequence[Path] = (),
    workers: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Writes the shards that are missing in `out`, and returns the manifest (see `shards.read_manifest`).

    backgrounds: images to put subjects on. workers: number of threads.
    progress: called with the number of entries processed since the last call.
    Raises InvalidData, also if `out` was prepared with another recipe or from another source.
    """
    groups, skipped = _group_entries(entries, recipe)
    with _locked(out), ThreadPoolExecutor(workers) as pool:
        manifest = {
            "recipe": json.loads(json.dumps(asdict(recipe))),
            "source": {"entries": len(entries), "sha256": _source_digest(entries, backgrounds)},
            "complete": False,
            "shards": [],
            "skipped": skipped,
        }
        previous = _read_previous(out, manifest)
        preparation = _Preparation(recipe, out, backgrounds, pool, workers, progress, manifest, previous)
        progress(len(skipped))
        for (part, split), group in groups.items():
            preparation.add_group(part, split, group)
        manifest |= {"complete": True, "counts": _count_records(manifest)}
        _write_manifest(out, manifest)
    return manifest


def reasons(manifest: dict[str, Any]) -> Counter[str]:
    """Counts the skipped records by reason, without the details after the colon."""
    return Counter(reason.partition(":")[0] for reason in manifest["skipped"].values())


# Entries


def _group_entries(
    entries: Sequence[Entry], recipe: Recipe
) -> tuple[dict[tuple[str, str], list[Entry]], dict[str, str]]:
    """Returns shuffled entries by (part, split), and reasons of skipped entries by id (duplicate id, unknown split)."""
    groups, skipped, seen = defaultdict(list), {}, set()
    for number, entry in enumerate(entries):
        split = recipe.split_of(entry)
        if entry.id in seen:
            skipped[f"{entry.id} (entry {number})"] = f"id taken: {entry.id}"
        elif split not in SPLITS:
            skipped[entry.id] = f"no such split: {split}"
        else:
            groups[shards.safe_name(entry.part) or recipe.kind, split].append(entry)
        seen.add(entry.id)
    shuffled = {key: sorted(groups[key], key=lambda entry: recipe.draw("order", entry.id)) for key in sorted(groups)}
    return shuffled, skipped


def _source_digest(entries: Sequence[Entry], backgrounds: Sequence[Path]) -> str:
    """Returns a SHA-256 of the names of all entries and backgrounds. The content of the files is not included."""
    names = [[entry.id, entry.split, entry.part, entry.image.name] for entry in entries]
    return hashlib.sha256(json.dumps([names, [path.name for path in backgrounds]]).encode()).hexdigest()


class Outcome(NamedTuple):
    """The result of one entry: its samples, and reasons of skipped records by id."""

    samples: list[Sample]
    skipped: dict[str, str]


def _process_entry(entry: Entry, *, split: str, recipe: Recipe, backgrounds: Sequence[Path]) -> Outcome:
    """Returns the sample of an entry and, for some entries of the training split, a sample on another background.

    The second sample is an addition, not a replacement, because the edge of a composite is never as exact as a real
    one. Validation and test use real images only.
    """
    try:
        record = recipe.apply(entry.load(recipe.check), split)
    except BadRecord as error:
        return Outcome([], {entry.id: str(error)})
    samples = [shards.encode_sample(record)]
    swapped = split == "train" and recipe.draw("swap", entry.id) < recipe.swapped
    if not (backgrounds and swapped and record.mask.any()):
        return Outcome(samples, {})
    _, composite_id = _record_ids(entry)
    background = backgrounds[int(recipe.draw("background", entry.id) * len(backgrounds))]
    try:
        composite = _composite(record, composite_id, background, recipe.backgrounds_class)
    except (InputError, BadRecord) as error:
        return Outcome(samples, {composite_id: f"unreadable background: {background.name}. {error}"})
    return Outcome([*samples, shards.encode_sample(composite)], {})


def _composite(record: Record, id_: str, background: Path, backgrounds_class: str) -> Record:
    """Returns the record on a background. Its licence class is unclear unless the background has the same class.
    Raises InputError, BadRecord."""
    composite = compose(record, decode(read_file(background), LIMITS).rgb, background.name)
    same_class = record.licence_class == backgrounds_class
    return replace(composite, id=id_, licence_class=record.licence_class if same_class else "unclear")


def _record_ids(entry: Entry) -> tuple[str, str]:
    """Returns the ids of an entry's record, and of its record on another background."""
    return entry.id, f"{entry.id}-composed"


# Shards


class _Previous(NamedTuple):
    """The manifest of an earlier run: rows of shards by file name, and reasons of skipped records by id."""

    shards: dict[str, dict[str, Any]]
    skipped: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Preparation:
    """A run that keeps the valid shards of an earlier run, writes the others, and updates the manifest."""

    recipe: Recipe
    out: Path
    backgrounds: Sequence[Path]
    pool: Executor
    workers: int
    progress: Callable[[int], None]
    manifest: dict[str, Any]
    previous: _Previous

    def add_group(self, part: str, split: str, group: Sequence[Entry]) -> None:
        """Keeps or writes all shards of one part and split."""
        start = number = 0
        while start < len(group):
            file = f"{part}-{split}-{number:06}.tar"
            row = self._keep_shard(file, group[start:])
            if row is None:
                row = self._write_shard(self.out / file, split, group[start:])
                row |= {"file": file, "part": part, "split": split}
            if row["records"]:
                self.manifest["shards"].append(row)
            if file not in self.previous.shards:  # else the stored manifest still has rows that this one lacks
                _write_manifest(self.out, self.manifest)
            start += row["entries"]
            number += 1

    def _keep_shard(self, file: str, entries: Sequence[Entry]) -> dict[str, Any] | None:
        """Returns the row of a shard of the earlier run; None if the shard is missing or damaged."""
        row = self.previous.shards.get(file)
        if row is None or not _is_valid(self.out / file, row):
            return None
        ids = {id_ for entry in entries[: row["entries"]] for id_ in _record_ids(entry)}
        self.manifest["skipped"].update({id_: text for id_, text in self.previous.skipped.items() if id_ in ids})
        self.progress(row["entries"])
        return row

    def _write_shard(self, path: Path, split: str, entries: Sequence[Entry]) -> dict[str, Any]:
        """Writes entries until the shard is full, and returns its row. A shard without records leaves no file."""
        counts = {"entries": 0, "records": 0}
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            shards.write(file, self._samples(split, entries, counts))
        row = {**counts, "bytes": path.stat().st_size, "sha256": digest(path)}
        if not counts["records"]:
            path.unlink()
        return row

    def _samples(self, split: str, entries: Sequence[Entry], counts: dict[str, int]) -> Iterator[Sample]:
        """Yields samples until the shard is full. Updates `counts` and the skipped records of the manifest."""
        size = 0
        for samples, skipped in self._outcomes(split, entries):
            counts["entries"] += 1
            counts["records"] += len(samples)
            self.manifest["skipped"].update(skipped)
            size += sum(len(data) for members in samples for data in members.values())
            yield from samples
            self.progress(1)
            if size >= self.recipe.shard_bytes:
                break

    def _outcomes(self, split: str, entries: Sequence[Entry]) -> Iterator[Outcome]:
        """Yields the outcomes of entries in order, processed in parallel."""
        process = partial(_process_entry, split=split, recipe=self.recipe, backgrounds=self.backgrounds)
        at_once = self.workers * ENTRIES_PER_WORKER
        for start in range(0, len(entries), at_once):
            yield from self.pool.map(process, entries[start : start + at_once])


def _is_valid(path: Path, row: dict[str, Any]) -> bool:
    return path.is_file() and digest(path) == row["sha256"]


# The output folder


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Creates and locks a folder, so that only one run writes to it. Raises InvalidData."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)
    except BlockingIOError as error:
        raise InvalidData(f"Another run is writing to {out}: wait for its end, or choose another folder.") from error
    except OSError as error:
        raise InvalidData(f"{error.filename or out} cannot be used: {error.strerror or error}.") from error


def _read_previous(out: Path, manifest: dict[str, Any]) -> _Previous:
    """Reads the manifest of an earlier run; writes `manifest` as the first one into an empty folder.
    Raises InvalidData, also for another recipe or source."""
    previous = shards.read_manifest(out)
    if previous is None:
        if any(not path.name.startswith(".") for path in out.iterdir()):
            raise InvalidData(f"{out} is neither empty nor prepared: choose another folder.")
        _write_manifest(out, manifest)
        previous = manifest
    for name, difference in (("recipe", "with other options"), ("source", "from another source")):
        if previous[name] != manifest[name]:
            raise InvalidData(f"{out} was prepared {difference}: choose another folder, or delete this one.")
    return _Previous({row["file"]: row for row in previous["shards"]}, dict(previous["skipped"]))


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    with atomic_write(out / MANIFEST) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True), encoding="utf-8")


def _count_records(manifest: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Counts records by part and split."""
    counts: dict[str, dict[str, int]] = {}
    for row in manifest["shards"]:
        part = counts.setdefault(row["part"], dict.fromkeys(SPLITS, 0))
        part[row["split"]] += row["records"]
    return counts
