"""Rows of a published data set before they are validated: an image and its boxes."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from sagemaker_model.data.records import BadRecord, read_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".heic", ".avif", ".jxl")

SPLIT = re.compile(r"(?:.*[-_])?(train|val|test)(?:idation)?\d*(?:[-_].*)?", re.IGNORECASE)
"""File names that state a split: train, instances_val2017, validation-annotations-bbox."""


class Box(NamedTuple):
    """A box as its row states it: not validated. corners: x0, y0, x1, y1. crowd: around a group, or marked as
    difficult. area: pixels of the instance; None: the box's own."""

    label: str
    corners: tuple[float, float, float, float]
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxedEntry:
    """An image of a data set and its boxes.

    name: path of the image in the data set. load: reads the image file. Raises BadRecord.
    boxes: a reason "reason: details" takes the place of a row that cannot be read.
    unit: of the corners; shares are of the image's width and height. size: (width, height) that the data set states.
    split: train, val or test; "" if the data set states none.
    fault: reason for which the whole image is unusable; "" without one.
    """

    name: str
    load: Callable[[], bytes]
    boxes: Sequence[Box | str] = ()
    unit: Literal["pixels", "shares"] = "pixels"
    size: tuple[int, int] | None = None
    split: str = ""
    fault: str = ""


class Listing(NamedTuple):
    """The entries of a data set. names: its classes in their order; () if it has no list of classes."""

    entries: Sequence[BoxedEntry]
    names: tuple[str, ...] = ()


def split_of(file: Path) -> str:
    """Returns the split that a file name states, train, val or test; "" without one."""
    match = SPLIT.fullmatch(file.stem)
    return match[1].lower() if match else ""


def read_inside(root: Path, *paths: Path) -> bytes:
    """Reads the first of these files that can be read. root: folder that no path may leave by `..`; links may.
    Raises BadRecord for the first path."""
    errors = []
    for path in paths:
        try:
            if not Path(os.path.normpath(path.absolute())).is_relative_to(os.path.normpath(root.absolute())):
                raise BadRecord(f"file outside the data set: {path}")
            return read_file(path)
        except BadRecord as error:
            errors.append(error)
    raise errors[0]


def images_by_stem(folder: Path) -> dict[str, list[Path]]:
    """Lists the image files below a folder by file name without suffix."""
    images: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            images[path.stem].append(path)
    return images
