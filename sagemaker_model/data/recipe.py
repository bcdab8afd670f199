"""What becomes of a dataset: which records are kept, how they are cut and sized, and which split is theirs."""

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

SHARES = (0.7, 0.3, 0.0)
"""Of train, val and test, where neither the source nor the recipe says any."""

_DEFAULTS: dict[Kind, dict[str, Any]] = {
    "supervisely": {"classes": supervisely.CLASSES, "subject": "all", "empty": False},
    "voc": {"classes": ("person",), "min_share": 0.15, "empty": True},
    "coco": {"classes": ("person",), "subject": "central", "min_share": 0.4, "empty": False},
    "folders": {"empty": True},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What becomes of a dataset.

    classes: the names that are the subject. subject: which instances of an image are.
    side: of the stored image's longer side, in pixels at most; its shape stays, for training to crop as it likes.
    shares: of train, val and test; None takes the source's own split, and SHARES where it has none.
    shard_bytes: a shard ends with the record that reaches them.
    min_share: of the image that a subject covers at least. empty: whether images without a subject are kept.
    min_side: of the source's shorter side, in pixels.
    aspect: (width, height) to whose shape images are cut around the subject; None leaves them.
    swapped: the share of training records that also come on another background.
    licence, licence_class: of records whose source says none. backgrounds_class: the licence class of the backgrounds.
    """

    kind: Kind
    classes: tuple[str, ...] = ()
    subject: Subject | None = None
    side: int = 640
    shares: tuple[float, float, float] | None = None
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
    def of(cls, kind: Kind, **given: Any) -> Recipe:
        """The recipe of a kind; what is None is as its kind has it. Raises InvalidData."""
        defaults = _DEFAULTS[kind]
        chosen = {name: value for name, value in given.items() if value is not None}
        if foreign := [name for name in ("classes", "subject") if name in chosen and name not in defaults]:
            raise InvalidData(f"{kind} knows no {' and no '.join(foreign)}: its masks are taken as they are.")
        recipe = cls(kind=kind, **{**defaults, **chosen})
        shares = recipe.shares or SHARES
        if min(shares) < 0 or not abs(sum(shares) - 1) <= 1e-6:
            raise InvalidData(f"The shares of a split are 0 or more and make 1 together, not {shares}.")
        for name in ("min_share", "swapped"):
            if not 0 <= getattr(recipe, name) <= 1:
                raise InvalidData(f"{name} is a share, 0 to 1, not {getattr(recipe, name)}.")
        if recipe.side < 1 or recipe.shard_bytes < 1 or min(recipe.aspect or (1, 1)) < 1:
            raise InvalidData("side, the size of a shard and both numbers of an aspect are 1 or more.")
        return recipe

    def split_of(self, entry: Entry) -> str:
        if entry.split and not self.shares:
            return entry.split
        chance = self.chance("split", entry.id)
        train, val, _ = self.shares or SHARES
        return "train" if chance < train else "val" if chance < train + val else "test"

    def chance(self, purpose: str, id_: str) -> float:
        """A number from 0 to 1, always the same for a seed, a purpose and an id, whatever else a dataset has: new
        records move no old one to another split."""
        drawn = hashlib.sha256(f"{self.seed}/{purpose}/{id_}".encode()).digest()
        return int.from_bytes(drawn[:8]) / 2**64

    def check(self, mask: Pixels) -> None:
        """Raises BadRecord where a rule leaves the record out."""
        height, width = mask.shape
        if min(height, width) < self.min_side:
            raise BadRecord(f"image too small: {width} x {height}")
        if not mask.any():
            if not self.empty:
                raise BadRecord("no subject")
        elif (share := float(mask.mean()) / 255) < self.min_share:
            raise BadRecord(f"subject too small: {share:.3f} of the image")

    def applied(self, record: Record, split: str) -> Record:
        """The record as it is stored."""
        if self.aspect:
            record = _cut(record, *self.aspect)
        return replace(
            _sized(record, self.side),
            split=split,
            part=record.part or self.kind,
            licence=record.licence or self.licence,
            licence_class=record.licence_class or self.licence_class,
        )


def _cut(record: Record, across: int, down: int) -> Record:
    """The largest part of this shape that the image has, with the subject's box as near to its middle as it goes."""
    height, width = record.mask.shape
    wide, high = min(width, max(1, height * across // down)), min(height, max(1, width * down // across))
    box_x, box_y, box_width, box_height = cv2.boundingRect(record.mask) if record.mask.any() else (0, 0, width, height)
    x = min(max(0, box_x + (box_width - wide) // 2), width - wide)
    y = min(max(0, box_y + (box_height - high) // 2), height - high)
    place = slice(y, y + high), slice(x, x + wide)
    return replace(record, image=record.image[place].copy(), mask=record.mask[place].copy())


def _sized(record: Record, side: int) -> Record:
    height, width = record.mask.shape
    scale = side / max(height, width)
    if scale >= 1:
        return record
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image, mask = (resized(pixels, size, halve=False) for pixels in (record.image, record.mask))
    return replace(record, image=image, mask=mask)
