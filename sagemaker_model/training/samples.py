"""Sample n of a run is always the same, whoever makes it and when: it hangs on the seed and on n alone. So a run that
is resumed sees what it would have seen, whatever the number of workers or processes.

For that, records are read at random: in a data folder, or in shards, whose tar files are not compressed. They have to
lie on a disk; SageMaker's file mode puts them there.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskdrop.errors import InputError
from sagemaker_model.data import folders, shards
from sagemaker_model.data.records import LIMITS, BadRecord, Entry, InvalidData, Record, contents
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.training.augment import augmented
from sagemaker_model.training.settings import TrainingSettings

TRIES = 100
"""Records in a row that cannot be used: then it is the data that cannot."""

PICTURES = (".jpg", ".jpeg", ".png", ".webp")


class Batch(NamedTuple):
    """image: Nx3xHxW uint8 RGB. alpha: Nx1xHxW uint8. skipped: what could not be used on the way, id to reason."""

    picture: Tensor
    alpha: Tensor
    skipped: dict[str, str]


class Source(Protocol):
    """The records of a split, by number."""

    def __len__(self) -> int: ...

    def record(self, number: int) -> Record:
        """Raises BadRecord, which costs this record alone; and InvalidData."""
        ...


class Folder:
    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def record(self, number: int) -> Record:
        try:
            return self.entries[number].load()
        except BadRecord as error:
            raise BadRecord(f"{self.entries[number].id}: {error}") from error


class Place(NamedTuple):
    """Where a record lies in a shard: name, first byte and number of bytes of each of its members."""

    shard: Path
    members: tuple[tuple[str, int, int], ...]


class Shards:
    def __init__(self, places: Sequence[Place]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    def record(self, number: int) -> Record:
        shard, members = self.places[number]
        return shards.decoded(shard, dict(_read(shard, members)))


def source(folder: Path, split: str, *, clean: bool = False) -> Source:
    """The records of a split: of shards where there is their manifest, else of a data folder.

    A folder of a split of its own (SageMaker's channels) has no other: then all its records are meant.
    clean: only those of that licence class. Raises InvalidData, also where there are none.
    """
    found: Source
    if shards.read_manifest(folder):
        places = [place for shard in shards.prepared(folder, split) for place in _places(shard)]
        found = Shards([place for place in places if not clean or _licence_class(place) == "clean"])
    else:
        entries = folders.entries(folder)
        if any(entry.split for entry in entries):
            entries = [entry for entry in entries if entry.split == split]
        found = Folder([entry for entry in entries if not clean or entry.licence_class == "clean"])
    if not len(found):
        raise InvalidData(f"{folder} has no {'clean ' * clean}records of the split {split!r}.")
    return found


def digest(*folders_: Path) -> str:
    """SHA-256 of the manifests and of the names and sizes of the files beside them: which data it was."""
    total = hashlib.sha256()
    for folder in folders_:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            total.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
            if path.name in (folders.MANIFEST, shards.MANIFEST):
                total.update(path.read_bytes())
    return total.hexdigest()


class Samples(Dataset[Batch]):
    """Augmented samples by number, without end: each epoch has every record once, in an order of its own.

    backgrounds: a folder of images to put subjects on; None for none. Every item is a Batch of one.
    Raises InvalidData for a folder without images.
    """

    def __init__(self, source: Source, settings: TrainingSettings, backgrounds: Path | None) -> None:
        self.source, self.settings = source, settings
        paths = sorted(backgrounds.rglob("*")) if backgrounds else []
        self.backgrounds = [partial(_background, path) for path in paths if path.suffix.lower() in PICTURES]
        if backgrounds and not self.backgrounds:
            raise InvalidData(f"There are no images in {backgrounds}.")

    def __getitem__(self, number: int) -> Batch:
        random = np.random.default_rng((self.settings.seed, number))
        epoch, place = divmod(number, len(self.source))
        chosen = int(_order(self.settings.seed, epoch, len(self.source))[place])
        skipped: dict[str, str] = {}
        for _ in range(TRIES):
            try:
                picture, alpha = augmented(
                    self.source.record(chosen),
                    self.settings.side,
                    random,
                    composed=self.settings.composed,
                    empty=self.settings.empty,
                    backgrounds=self.backgrounds,
                    another=lambda: self.source.record(int(random.integers(len(self.source)))),
                )
            except BadRecord as error:
                name, _, reason = str(error).partition(": ")
                skipped[name] = reason
                chosen = int(random.integers(len(self.source)))
            else:
                return _batch(picture, alpha, skipped)
        raise InvalidData(f"{TRIES} records in a row cannot be used; the last: {name}: {reason}.")


class Whole(Dataset[Batch]):
    """Every record once, squeezed into the square that the network sees: what a validation is made of."""

    def __init__(self, source: Source, side: int) -> None:
        self.source, self.side = source, side

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, number: int) -> Batch:
        try:
            record = self.source.record(number)
        except BadRecord as error:
            name, _, reason = str(error).partition(": ")
            none = torch.zeros((0, 1, self.side, self.side), dtype=torch.uint8)
            return Batch(none.expand(-1, 3, -1, -1), none, {name: reason})
        image, mask = (resized(pixels, (self.side, self.side), halve=False) for pixels in (record.image, record.mask))
        return _batch(image, mask, {})


def training_loader(samples: Samples, first: int, rank: int = 0, processes: int = 1) -> DataLoader[Batch]:
    """The batches from step `first` to the last; each of the processes gets its share of every batch."""
    settings = samples.settings
    share = settings.batch // processes
    starts = [step * settings.batch + rank * share for step in range(first, settings.steps)]
    return _loader(samples, settings, [range(start, start + share) for start in starts])


def validation_loader(whole: Whole, settings: TrainingSettings, rank: int = 0, processes: int = 1) -> DataLoader[Batch]:
    numbers = range(rank, len(whole), processes)
    share = max(1, settings.batch // processes)
    return _loader(whole, settings, [numbers[at : at + share] for at in range(0, len(numbers), share)])


def _loader(dataset: Dataset[Batch], settings: TrainingSettings, numbers: list[range]) -> DataLoader[Batch]:
    cv2.setNumThreads(1)  # the workers share the cores; and one that is forked beside OpenCV's threads waits for ever
    return DataLoader(
        dataset,
        batch_sampler=numbers,
        num_workers=settings.workers,
        collate_fn=_joined,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
    )


def _joined(batches: list[Batch]) -> Batch:
    pictures, alphas, skipped = zip(*batches, strict=True)
    reasons = {name: reason for some in skipped for name, reason in some.items()}
    return Batch(torch.cat(pictures), torch.cat(alphas), reasons)


def _batch(picture: Pixels, alpha: Pixels, skipped: dict[str, str]) -> Batch:
    return Batch(torch.from_numpy(picture).permute(2, 0, 1)[None], torch.from_numpy(alpha)[None, None], skipped)


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


def _background(path: Path) -> Pixels:
    try:
        return decode(contents(path), LIMITS).rgb
    except InputError as error:
        raise BadRecord(f"{path.name}: unreadable background. {error}") from error


def _places(shard: Path) -> Iterator[Place]:
    """Raises InvalidData."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [(member.name, member.offset_data, member.size) for member in tar]
    except (OSError, tarfile.TarError) as error:
        raise InvalidData(f"{shard} is damaged: {error}.") from error
    by_key: dict[str, list[tuple[str, int, int]]] = {}
    for member in members:
        by_key.setdefault(member[0].partition(".")[0], []).append(member)
    return (Place(shard, tuple(of_key)) for of_key in by_key.values())


def _read(shard: Path, members: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, bytes]]:
    with shard.open("rb") as file:
        for name, start, size in members:
            file.seek(start)
            yield name, file.read(size)


def _licence_class(place: Place) -> str:
    said = next((member for member in place.members if member[0].endswith(".json")), None)
    content = dict(_read(place.shard, [said] if said else []))
    return next((str(json.loads(text).get("licence_class", "")) for text in content.values()), "")
