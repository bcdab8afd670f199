"""Data folders: images/ID.jpg, masks/ID.png and manifest.csv. Training and evaluation read this layout, too.

The manifest has one row per image with the columns id, split (train, val or test), part, licence_class, source and
licence; other columns are ignored. Without a manifest, every pair of image and mask is read, with empty fields.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from sagemaker_model.data.masks import decode_png
from sagemaker_model.data.records import BadRecord, Entry, InvalidData, read_file
from sagemaker_model.imaging.pixels import Pixels

MANIFEST = "manifest.csv"

COLUMNS = ("split", "part", "source", "licence", "licence_class")


def entries(folder: Path) -> list[Entry]:
    """Lists all records of a data folder and its manifest, sorted by id.

    An entry without an image, a mask or a manifest row raises BadRecord when it is loaded. Raises InvalidData.
    """
    images, masks = folder / "images", folder / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise InvalidData(f"{folder} is not a data folder: it must have the folders images/ and masks/.")
    image_paths = _by_stem(images)
    rows = _read_manifest(folder / MANIFEST)
    ids = {*image_paths, *_by_stem(masks), *(rows or ())}
    result = []
    for id_ in sorted(ids):
        row = rows.get(id_) if rows is not None else {}
        values = {name: (row or {}).get(name) or "" for name in COLUMNS}
        mask = partial(_mask, masks / f"{id_}.png", len(image_paths.get(id_, ())), listed=row is not None)
        result.append(Entry(id=id_, image=image_paths.get(id_, [images / f"{id_}.jpg"])[0], mask=mask, **values))
    return result


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    files: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            files[path.stem].append(path)
    return files


def _read_manifest(path: Path) -> dict[str, dict[str, str]] | None:
    """Returns the manifest's rows by id, or None if the file does not exist. Raises InvalidData."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error
    if not rows or not all(row.get("id") for row in rows):
        raise InvalidData(f"{path} is not a manifest: it must have rows, each with an id.")
    by_id = {row["id"]: row for row in rows}
    if len(by_id) < len(rows):
        raise InvalidData(f"{path} has duplicate ids; each id must be unique.")
    return by_id


def _mask(path: Path, image_count: int, *, listed: bool) -> Pixels:
    """Reads a mask of any PNG mode. HxW uint8.

    image_count: number of images with this id. listed: whether the manifest has this id. Raises BadRecord.
    """
    if not listed:
        raise BadRecord(f"not in the manifest: {path.stem}")
    if image_count != 1:
        raise BadRecord(f"missing file: no image {path.stem}" if not image_count else f"two images: {path.stem}")
    image = decode_png(read_file(path))
    if image.has_transparency_data:
        mask = np.asarray(image.convert("RGBA").getchannel("A"))
    elif image.mode.startswith("I"):  # 16 bits per pixel: Pillow's convert clips at 255
        mask = (np.asarray(image) >> 8).astype(np.uint8)
    else:
        colours = np.asarray(image.convert("RGB"))
        mask = colours[..., 0]
        if not (colours == mask[..., None]).all():
            raise BadRecord(f"coloured mask: {path.name}")
    if mask.max() == 1:
        raise BadRecord(f"mask of 0 and 1: {path.name}; the subject must be 255")
    return mask.copy()
