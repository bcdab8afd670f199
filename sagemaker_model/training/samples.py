"""Training and validation samples from data folders or shards.

Sample n of a run depends only on the seed and on n. So a resumed run gets the same samples, with any number of workers
or processes. This requires random access to records: data folders, or shards, whose tar files are not compressed. They
must be on a local disk; SageMaker's File mode copies them there.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence, Sized
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import DataLoader, Dataset

from maskdrop.errors import InputError
from maskdrop.settings import InvalidSettings
from sagemaker_model.data import detection, folders, shards
from sagemaker_model.data.detection import DetectionRecord, DetectionSet
from sagemaker_model.data.records import LIMITS, BadRecord, Entry, InvalidData, Record, read_file
from sagemaker_model.imaging.letterbox import letterboxed
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.imaging.resize import resized
from sagemaker_model.training import augment_boxes
from sagemaker_model.training.augment import augment
from sagemaker_model.training.settings import DETECTORS, TrainingSettings

MAX_ATTEMPTS = 100
"""Number of consecutive unusable records after which the data as a whole is invalid."""

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class Batch(NamedTuple):
    """image: Nx3xHxW uint8 RGB. skipped: reasons of unusable records by id.

    target: Nx1xHxW uint8 alpha; for a detector NxMx6 float32 objects (label, x0, y0, x1, y1 in pixels of the image,
    crowd), filled up with rows of NO_OBJECT.
    """

    image: Tensor
    target: Tensor
    skipped: dict[str, str]


NO_OBJECT = -1.0
"""Value of the rows that fill up the objects of an image: images of a batch have different numbers of objects."""


Pair = tuple[Tensor, Tensor]
"""Image and target of one sample; see `Batch`."""


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


def box_source(folder: Path, split: str) -> DetectionSet:
    """Opens the records of a split of a detection data set, with `source`'s rule for sets without splits.
    Raises InvalidData."""
    whole = detection.read_set(folder)
    if not any(record.split for record in whole.records):
        return whole
    return detection.read_set(folder, split)


def digest(*data_folders: Path) -> str:
    """Returns a SHA-256 that identifies the data: of the manifests and annotations, and of the names and sizes of all
    files."""
    total = hashlib.sha256()
    for folder in data_folders:
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            total.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
            if path.name in (folders.MANIFEST, shards.MANIFEST, detection.ANNOTATIONS):
                total.update(path.read_bytes())
    return total.hexdigest()


class EndlessSamples(Dataset[Batch]):
    """An endless sequence of augmented samples. Each epoch has every record once, in a new random order.

    Every item is a Batch of one. source: the records.
    """

    def __init__(self, source: Sized, settings: TrainingSettings) -> None:
        self.source, self.settings = source, settings

    def sample(self, number: int, random: np.random.Generator) -> Pair:
        """Returns a random sample of one record, image and target. Raises BadRecord ("id: reason")."""
        raise NotImplementedError

    def __getitem__(self, number: int) -> Batch:
        random = np.random.default_rng((self.settings.seed, number))
        epoch, position = divmod(number, len(self.source))
        chosen = int(_epoch_order(self.settings.seed, epoch, len(self.source))[position])
        skipped: dict[str, str] = {}
        for _ in range(MAX_ATTEMPTS):
            try:
                image, target = self.sample(chosen, random)
            except BadRecord as error:
                name, _, reason = str(error).partition(": ")
                skipped[name] = reason
                chosen = int(random.integers(len(self.source)))
            else:
                return Batch(image, target, skipped)
        raise InvalidData(f"{MAX_ATTEMPTS} records in a row are unusable; the last: {name}: {reason}.")


class EverySample(Dataset[Batch]):
    """Every record once, not augmented. Every item is a Batch of one, or of none for an unusable record."""

    def __init__(self, source: Sized, side: int) -> None:
        self.source, self.side = source, side

    def __len__(self) -> int:
        return len(self.source)

    def sample(self, number: int) -> Pair:
        """Returns the sample of one record, image and target. Raises BadRecord ("id: reason")."""
        raise NotImplementedError

    def nothing(self) -> Pair:
        """Returns an image and a target of batch size 0."""
        raise NotImplementedError

    def __getitem__(self, number: int) -> Batch:
        try:
            return Batch(*self.sample(number), {})
        except BadRecord as error:
            name, _, reason = str(error).partition(": ")
            return Batch(*self.nothing(), {name: reason})


class TrainingSamples(EndlessSamples):
    """Augmented images and alphas. backgrounds: folder of background images; None for none.
    Raises InvalidData for a folder without images."""

    source: Source

    def __init__(self, source: Source, settings: TrainingSettings, backgrounds: Path | None) -> None:
        super().__init__(source, settings)
        paths = sorted(backgrounds.rglob("*")) if backgrounds else []
        self.backgrounds = [partial(_read_background, path) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
        if backgrounds and not self.backgrounds:
            raise InvalidData(f"{backgrounds} has no images; it must have at least one of {', '.join(IMAGE_SUFFIXES)}.")

    def sample(self, number: int, random: np.random.Generator) -> Pair:
        image, alpha = augment(
            self.source.record(number),
            self.settings.side,
            random,
            composed=self.settings.composed,
            empty=self.settings.empty,
            backgrounds=self.backgrounds,
            another=lambda: self.source.record(int(random.integers(len(self.source)))),
        )
        return to_planes(image), torch.from_numpy(alpha)[None, None]


class ValidationSamples(EverySample):
    """Images and alphas, resized to the network's square input."""

    source: Source

    def sample(self, number: int) -> Pair:
        record = self.source.record(number)
        image, mask = (resized(pixels, (self.side, self.side), halve=False) for pixels in (record.image, record.mask))
        return to_planes(image), torch.from_numpy(mask)[None, None]

    def nothing(self) -> Pair:
        none = torch.zeros((0, 1, self.side, self.side), dtype=torch.uint8)
        return none.expand(-1, 3, -1, -1), none


class TrainingBoxes(EndlessSamples):
    """Augmented images and their objects."""

    source: tuple[DetectionRecord, ...]

    def sample(self, number: int, random: np.random.Generator) -> Pair:
        record = self.source[number]
        # A box around a group is no object to learn.
        image = augment_boxes.augment(_boxed(record).kept(~record.crowd), self.settings.side, random)
        return to_planes(image.image), _objects(image.boxes, image.labels, np.zeros(len(image.labels), np.bool_))


class ValidationBoxes(EverySample):
    """Images and their objects, scaled into the network's square input."""

    source: tuple[DetectionRecord, ...]

    def sample(self, number: int) -> Pair:
        record = self.source[number]
        square, placement = letterboxed(_boxed(record).image, self.side)
        return to_planes(square), _objects(placement.to_square(record.boxes), record.labels, record.crowd)

    def nothing(self) -> Pair:
        return torch.zeros((0, 3, self.side, self.side), dtype=torch.uint8), torch.zeros((0, 0, 6))


def open_samples(
    network: str, settings: TrainingSettings, train: Path, val: Path, backgrounds: Path | None
) -> tuple[EndlessSamples, EverySample, tuple[str, ...]]:
    """Opens the data of a network: samples for training and for validation, and the names of a detector's classes.

    Raises InvalidData, also for a split without records; InvalidSettings for backgrounds of a detector.
    """
    if network not in DETECTORS:
        training = TrainingSamples(source(train, "train", clean=settings.clean), settings, backgrounds)
        return training, ValidationSamples(source(val, "val"), settings.side), ()
    if backgrounds or settings.clean:
        raise InvalidSettings(f"{network} supports neither backgrounds nor clean=true: its data have no masks.")
    boxes, val_boxes = box_source(train, "train"), box_source(val, "val")
    if boxes.names != val_boxes.names:
        raise InvalidData(f"{val} has other classes than {train}: {val_boxes.names}, not {boxes.names}.")
    if all(record.crowd.all() for record in val_boxes.records):
        raise InvalidData(f"{val} has no boxes to validate with, apart from crowds.")
    return TrainingBoxes(boxes.records, settings), ValidationBoxes(val_boxes.records, settings.side), boxes.names


def training_loader(samples: EndlessSamples, first: int, rank: int = 0, processes: int = 1) -> DataLoader[Batch]:
    """Loads the batches from step `first` to the last; every process gets its share of each batch."""
    settings = samples.settings
    share = settings.batch // processes
    starts = [step * settings.batch + rank * share for step in range(first, settings.steps)]
    return _loader(samples, settings, [list(range(start, start + share)) for start in starts])


def validation_loader(
    samples: EverySample, settings: TrainingSettings, rank: int = 0, processes: int = 1
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
    images, targets, skipped = zip(*batches, strict=True)
    reasons = {name: reason for some in skipped for name, reason in some.items()}
    if targets[0].ndim == 3:  # objects
        rows = max(target.shape[1] for target in targets)
        targets = tuple(pad(target, (0, 0, 0, rows - target.shape[1]), value=NO_OBJECT) for target in targets)
    return Batch(torch.cat(images), torch.cat(targets), reasons)


def to_planes(image: Pixels) -> Tensor:
    """Converts an image, HxWx3, to a batch of one, 1x3xHxW."""
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def _objects(boxes: NDArray[np.float32], labels: NDArray[np.int64], crowd: NDArray[np.bool_]) -> Tensor:
    """Returns the objects of one image, 1xMx6; see `Batch`."""
    return torch.from_numpy(np.column_stack((labels, boxes, crowd)).astype(np.float32).reshape(1, -1, 6))


def _boxed(record: DetectionRecord) -> augment_boxes.BoxedImage:
    """Reads the image of a record. Raises BadRecord with the name of the file first."""
    try:
        return augment_boxes.BoxedImage(record.read(), record.boxes, record.labels)
    except BadRecord as error:
        raise BadRecord(f"{record.file.name}: {error}") from error


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
