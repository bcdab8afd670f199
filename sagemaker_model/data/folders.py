"""A data folder: images/ID.jpg, masks/ID.png and manifest.csv. What training and evaluation read, too.

The manifest has a row for every image with the columns id, split (train, val, test), part, licence_class, source and
licence; others are ignored. Without a manifest every pair is read, and nothing is said of it.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from sagemaker_model.data.masks import png
from sagemaker_model.data.records import BadRecord, Entry, InvalidData, contents
from sagemaker_model.imaging.pixels import Pixels

MANIFEST = "manifest.csv"


def entries(folder: Path) -> list[Entry]:
    """Everything that is in the folder or in its manifest, by id. What lacks its image, its mask or its row says so
    when it is loaded. Raises InvalidData."""
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise InvalidData(f"{folder} is no data folder: it has no folders images/ and masks/.")
    pictures = _by_stem(images)
    rows = _rows(folder / MANIFEST)
    ids = {*pictures, *_by_stem(masks), *(rows or ())}
    found = []
    for id_ in sorted(ids):
        row = rows.get(id_) if rows is not None else {}
        said = {name: (row or {}).get(name) or "" for name in ("split", "part", "source", "licence", "licence_class")}
        mask = partial(_mask, masks / f"{id_}.png", len(pictures.get(id_, ())), listed=row is not None)
        found.append(Entry(id=id_, picture=pictures.get(id_, [images / f"{id_}.jpg"])[0], mask=mask, **said))
    return found


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            files[path.stem].append(path)
    return files


def _rows(path: Path) -> dict[str, dict[str, str]] | None:
    """The manifest's rows by id; None where there is none. Raises InvalidData."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error
    if not rows or not all(row.get("id") for row in rows):
        raise InvalidData(f"{path} is no manifest: it has no rows, or rows without an id.")
    by_id = {row["id"]: row for row in rows}
    if len(by_id) < len(rows):
        raise InvalidData(f"{path} names some ids twice.")
    return by_id


def _mask(path: Path, pictures: int, *, listed: bool) -> Pixels:
    """HxW uint8. images: how many there are of this name. listed: whether the manifest has it. Raises BadRecord."""
    if not listed:
        raise BadRecord(f"not in the manifest: {path.stem}")
    if pictures != 1:
        raise BadRecord(f"missing file: no image {path.stem}" if not pictures else f"two images: {path.stem}")
    read = png(contents(path))
    if read.has_transparency_data:
        mask = np.asarray(read.convert("RGBA").getchannel("A"))
    elif read.mode.startswith("I"):  # 16 bits a pixel: Pillow's convert clips at 255
        mask = (np.asarray(read) >> 8).astype(np.uint8)
    else:
        colours = np.asarray(read.convert("RGB"))
        mask = colours[..., 0]
        if not (colours == mask[..., None]).all():
            raise BadRecord(f"coloured mask: {path.name}")
    if mask.max() == 1:
        raise BadRecord(f"mask of 0 and 1: {path.name}, and 255 is the subject")
    return mask.copy()
