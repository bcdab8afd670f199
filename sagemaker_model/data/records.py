"""One image with its mask, in memory (Record) and before it is read (Entry)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskdrop.errors import InputError, MaskdropError
from sagemaker_model.imaging.pixels import Limits, Pixels, decode

SPLITS = ("train", "val", "test")

LIMITS = Limits(max_bytes=64 * 1024 * 1024, max_pixels=100_000_000)
"""Of an image of a dataset: above what cameras make, and 300 MB of pixels at the most."""


class InvalidData(MaskdropError):
    """A folder, a list or a shard of a dataset is not valid, or predictions to evaluate do not match it."""

    code, status = "invalid_data", 422


class BadRecord(InvalidData):
    """One record cannot be used, or a rule leaves it out. "what is wrong: the details", so that reasons can be counted
    by what comes before the colon."""

    code = "bad_record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """image: HxWx3 uint8, upright sRGB. mask: HxW uint8, 255 = subject; may be soft.

    part: the portion of a dataset that is counted by itself. split: train, val or test; "" where none is said.
    licence_class: clean (may train weights that are given away), unclear, or "" where nothing is said.
    width, height: of the image that it was made from, in pixels.
    background: the file that the subject was put on; "" for an image as it was taken.
    """

    id: str
    image: Pixels
    mask: Pixels
    width: int
    height: int
    part: str = ""
    split: str = ""
    source: str = ""
    licence: str = ""
    licence_class: str = ""
    background: str = ""


def unchecked(_mask: Pixels) -> None:
    """The rule of one that takes every mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Where a record lies. Making one reads no pixel, and `mask` says what is wrong with it.

    image: the file. mask: reads or draws the mask, HxW uint8 of the image's size. Raises BadRecord.
    """

    id: str
    picture: Path
    mask: Callable[[], Pixels]
    part: str = ""
    split: str = ""
    source: str = ""
    licence: str = ""
    licence_class: str = ""

    def load(self, check: Callable[[Pixels], None] = unchecked) -> Record:
        """`check` sees the mask before the image is decoded, and may raise. Raises BadRecord."""
        mask = self.mask()
        check(mask)
        try:
            image = decode(contents(self.picture), LIMITS).rgb
        except InputError as error:
            raise BadRecord(f"unreadable image: {self.picture.name}. {error}") from error
        height, width = image.shape[:2]
        if mask.shape != (height, width):
            raise BadRecord(
                f"mask of another size: {mask.shape[1]} x {mask.shape[0]}, and its image has {width} x {height}"
            )
        return Record(
            id=self.id, image=image, mask=mask, width=width, height=height, part=self.part, split=self.split,
            source=self.source, licence=self.licence, licence_class=self.licence_class,
        )  # fmt: skip


def contents(path: Path) -> bytes:
    """Raises BadRecord."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadRecord(f"missing file: {path.name}") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise BadRecord(f"unreadable file: {path.name} ({error})") from error
