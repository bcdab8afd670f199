"""The recipe of a dataset: rules that select, crop, resize and split its records."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2

from sagemaker_model.data import supervisely
from sagemaker_model.data.masks import Subject
from sagemaker_model.data.records import BadRecord, Entry, InvalidData, Record
from sagemaker_model.imaging.pixels import Pixels
from sagemaker_model.imaging.resize import resized

Kind = Literal["supervisely", "voc", "coco", "folders"]

Shares = tuple[float, float, float]

DEFAULT_SHARES = (0.7, 0.3, 0.0)
"""Shares of train, val and test if neither the dataset nor the recipe sets them."""

_DEFAULTS: dict[Kind, dict[str, Any]] = {
    "supervisely": {"classes": supervisely.CLASSES, "subject": "all", "empty": False},
    "voc": {"classes": ("person",), "min_share": 0.15, "empty": True},
    "coco": {"classes": ("person",), "subject": "central", "min_share": 0.4, "empty": False},
    "folders": {"empty": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Rules that select, crop, resize and split the records of a dataset.

    classes: names of the classes that are the subject. subject: instances of an image that are the subject.
    side: maximum length of the stored image's longer side, in pixels; the aspect ratio stays, training crops.
    shares: of train, val and test; None keeps the dataset's own split, and uses DEFAULT_SHARES if it has none.
    shard_bytes: a shard ends with the record that reaches this size.
    min_share: minimum share of the image that a subject covers. empty: whether to keep images without a subject.
    min_side: minimum length of the source image's shorter side, in pixels.
    aspect: (width, height), the aspect ratio to crop images to, around the subject; None does not crop.
    swapped: share of the training records that are also stored on another background.
    licence, licence_class: for records whose dataset states none. backgrounds_class: licence class of the backgrounds.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    subject: Subject | None = None
    side: int = 640
    shares: Shares | None = None
    seed: int = 0
    shard_bytes: int = 200_000_000
    min_share: float = 0.0
    empty: bool = True
    min_side: int = 128
    aspect: tuple[int, int] | None = None
    swapped: float = 0.5
    licence: str = ""
    licence_class: str = ""
    backgrounds_class: str = ""

    @classmethod
    def of(cls, kind: Kind, **options: Any) -> Recipe:
        """Returns the recipe of a kind of dataset; None selects the kind's default. Raises InvalidData."""
        defaults = _DEFAULTS[kind]
        chosen = {name: value for name, value in options.items() if value is not None}
        if foreign := [name for name in ("classes", "subject") if name in chosen and name not in defaults]:
            raise InvalidData(f"{kind} does not support {' and '.join(foreign)}: its masks are used unchanged.")
        recipe = cls(kind=kind, **{**defaults, **chosen})
        recipe._validate()
        return recipe

    def _validate(self) -> None:
        """Raises InvalidData for an option out of range."""
        validate_shares(self.shares or DEFAULT_SHARES)
        for name in ("min_share", "swapped"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidData(f"{name} must be from 0 to 1; got {getattr(self, name)}.")
        if self.side < 1 or self.shard_bytes < 1 or min(self.aspect or (1, 1)) < 1:
            raise InvalidData("side, the size of a shard and both numbers of aspect must be 1 or more.")

    def split_of(self, entry: Entry) -> str:
        """Returns the split of an entry: the dataset's own, or one drawn by the seed and the id."""
        if entry.split and not self.shares:
            return entry.split
        return draw_split(self.seed, entry.id, self.shares or DEFAULT_SHARES)

    def draw(self, purpose: str, id_: str) -> float:
        """Returns a pseudo-random number in 0..1, a hash of seed, purpose and id.

        It does not depend on other records: adding records moves no existing record to another split.
        """
        return draw(self.seed, purpose, id_)

    def check(self, mask: Pixels) -> None:
        """Raises BadRecord if a rule excludes a record with this mask."""
        height, width = mask.shape
        if min(height, width) < self.min_side:
            raise BadRecord(f"image too small: {width} x {height}")
        if not mask.any():
            if not self.empty:
                raise BadRecord("no subject")
        elif (share := float(mask.mean()) / 255) < self.min_share:
            raise BadRecord(f"subject too small: {share:.3f} of the image")

    def apply(self, record: Record, split: str) -> Record:
        """Returns the record as it is stored: cropped, resized, and with all fields set."""
        if self.aspect:
            record = _crop(record, *self.aspect)
        return replace(
            _limit_side(record, self.side),
            split=split,
            part=record.part or self.kind,
            licence=record.licence or self.licence,
            licence_class=record.licence_class or self.licence_class,
        )


def validate_shares(shares: Shares) -> None:
    """Raises InvalidData for negative shares, and for shares that do not add up to 1."""
    if min(shares) < 0 or not abs(sum(shares) - 1) <= 1e-6:
        raise InvalidData(f"The shares of a split must be 0 or more and add up to 1; got {shares}.")


def draw(seed: int, purpose: str, id_: str) -> float:
    """Returns a pseudo-random number in 0..1, a hash of its arguments."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{id_}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def draw_split(seed: int, id_: str, shares: Shares) -> str:
    """Returns the split of a record by a hash of seed and id: train, val or test."""
    number = draw(seed, "split", id_)
    train, val, _ = shares
    return "train" if number < train else "val" if number < train + val else "test"


def _crop(record: Record, aspect_width: int, aspect_height: int) -> Record:
    """Crops to the largest area of this aspect ratio, with the subject's box as close to its centre as possible."""
    height, width = record.mask.shape
    crop_width = min(width, max(1, height * aspect_width // aspect_height))
    crop_height = min(height, max(1, width * aspect_height // aspect_width))
    box_x, box_y, box_width, box_height = cv2.boundingRect(record.mask) if record.mask.any() else (0, 0, width, height)
    x = min(max(0, box_x + (box_width - crop_width) // 2), width - crop_width)
    y = min(max(0, box_y + (box_height - crop_height) // 2), height - crop_height)
    area = slice(y, y + crop_height), slice(x, x + crop_width)
    return replace(record, image=record.image[area].copy(), mask=record.mask[area].copy())


def _limit_side(record: Record, side: int) -> Record:
    """Shrinks a record whose longer side exceeds `side` pixels."""
    height, width = record.mask.shape
    scale = side / max(height, width)
    if scale >= 1:
        return record
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image, mask = (resized(pixels, size, halve=False) for pixels in (record.image, record.mask))
    return replace(record, image=image, mask=mask)
