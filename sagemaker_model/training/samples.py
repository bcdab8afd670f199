"""Training and validation samples from data folders or shards.

Sample n of a run depends only on the seed and on n. So a resumed run gets the same samples, with any number of workers
or processes. This requires random access to records: data folders, or shards, whose tar files are not compressed. They
must be on a local disk; SageMaker's File mode copies them there.
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
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maskdrop.errors import InputError
from sagemaker_model.data import folders, shards
from sagemaker_model.data.records import LIMITS, BadRecord, Entry, InvalidData, Record, read_file
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.training.augment import augment
from sagemaker_model.training.settings import TrainingSettings

MAX_ATTEMPTS = 100
"""Number of consecutive unusable records after which the data as a whole is invalid."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Batch(NamedTuple):
    """image: Nx3xHxW uint8 RGB. alpha: Nx1xHxW uint8. skipped: reasons of unusable records by id."""

    image: Tensor
    alpha: Tensor
    skipped: dict[str, str]


class Source(Protocol):
    """The records of a split, by index."""

    def __len__(self) -> int: ...

    def record(self, number: int) -> Record:
        """Raises BadRecord if this record is unusable, InvalidData if the source is."""
        ...


class Folder:
    """The records of a data folder."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    def __len__(self) -> int:
        return len(self.entries)

    def record(self, number: int) -> Record:
        try:
            return self.entries[number].load()
        except BadRecord as error:
            raise BadRecord(f"{self.entries[number].id}: {error}") from error


class Location(NamedTuple):
    """Position of a record in a shard. members: name, offset and size in bytes of each member."""

    shard: Path
    members: tuple[tuple[str, int, int], ...]


class Shards:
    """The records of shards."""

    def __init__(self, locations: Sequence[Location]) -> None:
        self.locations = locations

    def __len__(self) -> int:
        return len(self.locations)

    def record(self, number: int) -> Record:
        shard, members = self.locations[number]
        return shards.decode_sample(shard, dict(_read_members(shard, members)))


def source(folder: Path, split: str, *, clean: bool = False) -> Source:
    """Opens the records of a split, from shards if the folder has their manifest, else from a data folder.

    A data folder without splits, such as a SageMaker channel, provides all its records for any split.
    clean: only records of the licence class clean. Raises InvalidData, also for a split without records.
    """
    result: Source
    if shards.read_manifest(folder):
        locations = [location for shard in shards.shard_paths(folder, split) for location in _locations(shard)]
        result = Shards([location for location in locations if not clean or _licence_class(location) == "clean"])
    else:
        entries = folders.entries(folder)
        if any(entry.split for entry in entries):
            entries = [entry for entry in entries if entry.split == split]
        result = Folder([entry for entry in entries if not clean or entry.licence_class == "clean"])
    if not len(result):
        raise InvalidData(f"{folder} has no {'clean ' * clean}records of the split {split!r}.")
    return result


def digest(*data_folders: Path) -> str:
    """Returns a SHA-256 that identifies the data: of the manifests, and of the names and sizes of all files."""
    total = hashlib.sha256()
    for folder in data_folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            total.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
            if path.name in (folders.MANIFEST, shards.MANIFEST):
                total.update(path.read_bytes())
    return total.hexdigest()


class TrainingSamples(Dataset[Batch]):
    """An endless sequence of augmented samples. Each epoch has every record once, in a new random order.

    Every item is a Batch of one. backgrounds: folder of background images; None for none.
    Raises InvalidData for a folder without images.
    """

    def __init__(self, source: Source, settings: TrainingSettings, backgrounds: Path | None) -> None:
        self.source, self.settings = source, settings
        paths = sorted(backgrounds.rglob("*")) if backgrounds else []
        self.backgrounds = [partial(_read_background, path) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
        if backgrounds and not self.backgrounds:
            raise InvalidData(f"{backgrounds} has no images; it must have at least one of {', '.join(IMAGE_SUFFIXES)}.")

    def __getitem__(self, number: int) -> Batch:
        random = np.random.default_rng((self.settings.seed, number))
        epoch, position = divmod(number, len(self.source))
        chosen = int(_epoch_order(self.settings.seed, epoch, len(self.source))[position])
        skipped: dict[str, str] = {}
        for _ in range(MAX_ATTEMPTS):
            try:
                image, alpha = augment(
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
                return _batch(image, alpha, skipped)
        raise InvalidData(f"{MAX_ATTEMPTS} records in a row are unusable; the last: {name}: {reason}.")


class ValidationSamples(Dataset[Batch]):
    """Every record once, resized to the network's square input. Every item is a Batch of one, or of none for an
    unusable record."""

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


def training_loader(samples: TrainingSamples, first: int, rank: int = 0, processes: int = 1) -> DataLoader[Batch]:
    """Loads the batches from step `first` to the last; every process gets its share of each batch."""
    settings = samples.settings
    share = settings.batch // processes
    starts = [step * settings.batch + rank * share for step in range(first, settings.steps)]
    return _loader(samples, settings, [list(range(start, start + share)) for start in starts])


def validation_loader(
    samples: ValidationSamples, settings: TrainingSettings, rank: int = 0, processes: int = 1
) -> DataLoader[Batch]:
    """Loads all records in batches; every process gets its share of the records."""
    numbers = range(rank, len(samples), processes)
    share = max(1, settings.batch // processes)
    return _loader(samples, settings, [list(numbers[at : at + share]) for at in range(0, len(numbers), share)])


def _loader(dataset: Dataset[Batch], settings: TrainingSettings, batches: list[list[int]]) -> DataLoader[Batch]:
    # The workers share the cores. Besides, a worker that is forked while OpenCV's threads run can deadlock.
    cv2.setNumThreads(1)
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=settings.workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=False,
    )


def _collate(batches: list[Batch]) -> Batch:
    images, alphas, skipped = zip(*batches, strict=True)
    reasons = {name: reason for some in skipped for name, reason in some.items()}
    return Batch(torch.cat(images), torch.cat(alphas), reasons)


def _batch(image: Pixels, alpha: Pixels, skipped: dict[str, str]) -> Batch:
    return Batch(torch.from_numpy(image).permute(2, 0, 1)[None], torch.from_numpy(alpha)[None, None], skipped)


@lru_cache(maxsize=2)
def _epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch, count)).permutation(count)


def _read_background(path: Path) -> Pixels:
    try:
        return decode(read_file(path), LIMITS).rgb
    except InputError as error:
        raise BadRecord(f"{path.name}: unreadable background. {error}") from error


def _locations(shard: Path) -> Iterator[Location]:
    """Returns the locations of all records of a shard. Raises InvalidData."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [(member.name, member.offset_data, member.size) for member in tar]
    except (OSError, tarfile.TarError) as error:
        raise InvalidData(f"{shard} is damaged: {error}.") from error
    by_key: dict[str, list[tuple[str, int, int]]] = {}
    for member in members:
        by_key.setdefault(member[0].partition(".")[0], []).append(member)
    return (Location(shard, tuple(group)) for group in by_key.values())


def _read_members(shard: Path, members: Sequence[tuple[str, int, int]]) -> Iterator[tuple[str, bytes]]:
    with shard.open("rb") as file:
        for name, offset, size in members:
            file.seek(offset)
            yield name, file.read(size)


def _licence_class(location: Location) -> str:
    members = [member for member in location.members if member[0].endswith(".json")][:1]
    texts = dict(_read_members(location.shard, members)).values()
    return next((str(json.loads(text).get("licence_class", "")) for text in texts), "")
