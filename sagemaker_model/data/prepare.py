"""A dataset as shards: read in its own layout, chosen by rules, split, shuffled, sized, and written so that a run that
was broken off, even by a kill, is taken up where it was and ends with the very bytes of an unbroken one.

That is so because a shard is a function of the recipe and of the place in the order where it begins. Each is written
aside and renamed when it is whole; then the manifest says its SHA-256 and how many entries went into it. The next run
keeps every shard that has its sum, and makes the others.
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
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from maskdrop.errors import InputError
from sagemaker_model.data import coco, folders, shards, supervisely, voc
from sagemaker_model.data.compose import compose
from sagemaker_model.data.recipe import Kind, Recipe
from sagemaker_model.data.records import LIMITS, SPLITS, BadRecord, Entry, InvalidData, read_file
from sagemaker_model.data.shards import MANIFEST, Sample
from sagemaker_model.imaging.pixels import decode
from sagemaker_model.weights.store import digest

UNFINISHED = ".unfinished"

IN_WORK = 16
"""Entries a worker: images are made by so many and written in their order."""


def entries_of(source: Path, recipe: Recipe) -> list[Entry]:
    """What is in a source, in the layout of the recipe's kind. Raises InvalidData."""
    if not source.exists():
        raise InvalidData(f"{source} does not exist.")
    read: dict[Kind, Callable[[], list[Entry]]] = {
        "supervisely": lambda: supervisely.entries(source, recipe.classes, recipe.subject or "all"),
        "voc": lambda: voc.entries(source, recipe.classes),
        "coco": lambda: coco.entries(source, recipe.classes, recipe.subject or "central"),
        "folders": lambda: folders.entries(source),
    }
    if entries := read[recipe.kind]():
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
    """Makes the shards in `out`, or those that are still missing. Returns the manifest (`shards.read_manifest`).

    backgrounds: images that subjects are put on. workers: threads.
    progress: called with the number of entries done since the last call.
    Raises InvalidData, also where `out` was prepared by another recipe or from another source.
    """
    planned, skipped = _plan(entries, recipe)
    with _filling(out), ThreadPoolExecutor(workers) as pool:
        made = {
            "recipe": json.loads(json.dumps(asdict(recipe))),
            "source": {"entries": len(entries), "sha256": _listing(entries, backgrounds)},
        }
        manifest = {**made, "complete": False, "shards": [], "skipped": skipped}
        before = _before(out, manifest)
        progress(len(skipped))
        for (name, split), group in planned.items():
            make = partial(_outcome, split=split, recipe=recipe, backgrounds=backgrounds)
            start = number = 0
            while start < len(group):
                file = f"{name}-{split}-{number:06}.tar"
                row = before["shards"].get(file)
                if row and _is_there(out / file, row):
                    ids = {id_ for entry in group[start : start + row["entries"]] for id_ in _ids(entry)}
                    skipped |= {id_: reason for id_, reason in before["skipped"].items() if id_ in ids}
                    progress(row["entries"])
                else:
                    outcomes = _in_order(pool, make, group[start:], workers * IN_WORK)
                    row = _shard(out / file, outcomes, recipe.shard_bytes, skipped, progress)
                    row |= {"file": file, "part": name, "split": split}
                if row["records"]:
                    manifest["shards"].append(row)
                if (
                    file not in before["shards"]
                ):  # while shards are only looked at, what is known of the next ones stays
                    _save(out, manifest)
                start += row["entries"]
                number += 1
        manifest |= {"complete": True, "counts": _counts(manifest)}
        _save(out, manifest)
    return manifest


def reasons(manifest: dict[str, Any]) -> Counter[str]:
    """How many were skipped, by reason without its details."""
    return Counter(reason.partition(":")[0] for reason in manifest["skipped"].values())


# What goes where


def _plan(entries: Sequence[Entry], recipe: Recipe) -> tuple[dict[tuple[str, str], list[Entry]], dict[str, str]]:
    """The entries of each (part, split) in the order of their shards; and those that cannot be placed, with the
    reason."""
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
    return {
        key: sorted(groups[key], key=lambda entry: recipe.draw("order", entry.id)) for key in sorted(groups)
    }, skipped


def _listing(entries: Sequence[Entry], backgrounds: Sequence[Path]) -> str:
    """SHA-256 of what there is to prepare, by name: that the images themselves stay as they are is not looked at."""
    names = [[entry.id, entry.split, entry.part, entry.image.name] for entry in entries]
    return hashlib.sha256(json.dumps([names, [path.name for path in backgrounds]]).encode()).hexdigest()


# One entry


class Outcome(NamedTuple):
    """What became of one entry: its samples, and what was skipped of it, with the reason."""

    samples: list[Sample]
    skipped: dict[str, str]


def _outcome(entry: Entry, *, split: str, recipe: Recipe, backgrounds: Sequence[Path]) -> Outcome:
    try:
        record = recipe.apply(entry.load(recipe.check), split)
    except BadRecord as error:
        return Outcome([], {entry.id: str(error)})
    outcome = Outcome([shards.encode_sample(record)], {})
    # Beside the image as it was taken, not in its place: an edge that was put on is never quite a true one. And in
    # training alone: what a network is measured on is real.
    swapped = split == "train" and recipe.draw("swap", entry.id) < recipe.swapped
    if backgrounds and swapped and record.mask.any():
        _, other = _ids(entry)
        background = backgrounds[int(recipe.draw("background", entry.id) * len(backgrounds))]
        try:
            put = compose(record, decode(read_file(background), LIMITS).rgb, background.name)
        except (InputError, BadRecord) as error:
            outcome.skipped[other] = f"unreadable background: {background.name}. {error}"
        else:
            clean = record.licence_class == recipe.backgrounds_class
            put = replace(put, id=other, licence_class=record.licence_class if clean else "unclear")
            outcome.samples.append(shards.encode_sample(put))
    return outcome


def _ids(entry: Entry) -> tuple[str, str]:
    """Of its record, and of that on another background."""
    return entry.id, f"{entry.id}-composed"


# One shard


def _in_order(
    pool: Executor, make: Callable[[Entry], Outcome], entries: Sequence[Entry], at_once: int
) -> Iterator[Outcome]:
    for at in range(0, len(entries), at_once):
        yield from pool.map(make, entries[at : at + at_once])


def _shard(
    path: Path,
    outcomes: Iterator[Outcome],
    full: int,
    skipped: dict[str, str],
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Takes outcomes until the shard is full, and adds to `skipped`. Returns its row; without records there is no
    file."""
    counts = {"entries": 0, "records": 0, "bytes": 0}

    def until_full() -> Iterator[Sample]:
        taken = 0
        for samples, left_out in outcomes:
            counts["entries"] += 1
            counts["records"] += len(samples)
            skipped.update(left_out)
            taken += sum(len(data) for members in samples for data in members.values())
            yield from samples
            progress(1)
            if taken >= full:
                break

    unfinished = path.with_name(UNFINISHED)
    with unfinished.open("wb") as file:
        shards.write(file, until_full())
        file.flush()
        os.fsync(file.fileno())
    row = {**counts, "bytes": unfinished.stat().st_size, "sha256": digest(unfinished)}
    if counts["records"]:
        unfinished.replace(path)  # whole or not at all
    else:
        unfinished.unlink()
    return row


def _is_there(path: Path, row: dict[str, Any]) -> bool:
    return path.is_file() and digest(path) == row["sha256"]


# The folder


@contextmanager
def _filling(out: Path) -> Iterator[None]:
    """One run at a time fills a folder. Raises InvalidData."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(lock)
    except BlockingIOError as error:
        raise InvalidData(f"Another run fills {out} at this moment.") from error
    except OSError as error:
        raise InvalidData(f"{error.filename or out} cannot be used: {error.strerror or error}.") from error


def _before(out: Path, fresh: dict[str, Any]) -> dict[str, Any]:
    """What an earlier run has done: its rows by file, and what it skipped. Where there was none, `fresh` is the first
    manifest. Raises InvalidData."""
    manifest = shards.read_manifest(out)
    if manifest is None:
        if any(not path.name.startswith(".") for path in out.iterdir()):
            raise InvalidData(f"{out} is neither empty nor prepared: choose another folder.")
        _save(out, fresh)
        manifest = fresh
    for name, what in (("recipe", "with other options"), ("source", "from another source")):
        if manifest[name] != fresh[name]:
            raise InvalidData(f"{out} was prepared {what}: choose another folder, or delete this one.")
    return {"shards": {row["file"]: row for row in manifest["shards"]}, "skipped": dict(manifest["skipped"])}


def _save(out: Path, manifest: dict[str, Any]) -> None:
    unfinished = out / f".{MANIFEST}"
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump(manifest, file, indent=1, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(out / MANIFEST)


def _counts(manifest: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Records by part and split."""
    counts: dict[str, dict[str, int]] = {}
    for row in manifest["shards"]:
        of_part = counts.setdefault(row["part"], dict.fromkeys(SPLITS, 0))
        of_part[row["split"]] += row["records"]
    return counts
