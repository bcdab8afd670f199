"""Records: an image with its mask, in memory (Record) and before it is read (Entry)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from maskdrop.errors import InputError, MaskdropError
from sagemaker_model.imaging.pixels import Limits, Pixels, decode

SPLITS = ("train", "val", "test")

LIMITS = Limits(max_bytes=64 * 1024 * 1024, max_pixels=100_000_000)
"""Limits for one image of a dataset: above what cameras produce, and at most 300 MB of pixels."""


class InvalidData(MaskdropError):
    """Data is invalid as a whole: a folder, list or shard, or the images, masks or predictions of an evaluation."""

    code, status = "invalid_data", 422


class BadRecord(InvalidData):
    """One record is unusable, or a rule excludes it. The message is "reason: details"; reasons are counted by the part
    before the colon."""

    code = "bad_record"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An image and its mask, decoded.

    image: HxWx3 uint8, upright sRGB. mask: HxW uint8, 255 = subject; may be soft.
    part: portion of the dataset that is counted separately. split: train, val or test; "" if unknown.
    licence_class: clean (may train weights that are published), unclear, or "" if unknown.
    width, height: size of the source image, in pixels.
    background: file name of the background that the subject was put on; "" for an original image.
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


def accept_all(_mask: Pixels) -> None:
    """Accepts every mask."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The location of a record. Creating an entry reads no pixels.

    image: path of the image. mask: reads or draws the mask, HxW uint8, of the image's size. Raises BadRecord.
    """

    id: str
    image: Path
    mask: Callable[[], Pixels]
    part: str = ""
    split: str = ""
    source: str = ""
    licence: str = ""
    licence_class: str = ""

    def load(self, check: Callable[[Pixels], None] = accept_all) -> Record:
        """Reads the mask and the image. `check` gets the mask before the image is decoded, and may raise BadRecord.
        Raises BadRecord."""
        mask = self.mask()
        check(mask)
        try:
            image = decode(read_file(self.image), LIMITS).rgb
        except InputError as error:
            raise BadRecord(f"unreadable image: {self.image.name}. {error}") from error
        height, width = image.shape[:2]
        if mask.shape != (height, width):
            raise BadRecord(
                f"mask of another size: {mask.shape[1]} x {mask.shape[0]}, but the image is {width} x {height}"
            )
        return Record(
            id=self.id, image=image, mask=mask, width=width, height=height, part=self.part, split=self.split,
            source=self.source, licence=self.licence, licence_class=self.licence_class,
        )  # fmt: skip


def read_file(path: Path) -> bytes:
    """Reads a file. Raises BadRecord."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BadRecord(f"missing file: {path.name}") from error
    except (OSError, ValueError) as error:  # ValueError: an invalid file name, with a null byte for example
        raise BadRecord(f"unreadable file: {path.name} ({error})") from error
