"""Evaluation datasets: folders of images with ground-truth masks, or shards of `maskdrop data prepare`.

images/ID.jpg|png    masks/ID.png (8-bit grey, 255 = subject)    manifest.csv (id, split and more columns)
PART-SPLIT-000000.tar (KEY.jpg, KEY.png, KEY.json)               manifest.json
"""

from __future__ import annotations

import csv
import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sagemaker_model.data import shards
from sagemaker_model.data.records import InvalidData
from sagemaker_model.evaluation.kinds import kind_of
from sagemaker_model.imaging.pixels import Pixels


@dataclass(frozen=True, slots=True)
class Case:
    """Paths of one image and its true mask. part: the group it counts in; "" if the manifest states none."""

    id: str
    part: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class Dataset:
    """The cases of one split. by: manifest column with the parts. sha256: see `digest`."""

    folder: Path
    split: str
    by: str
    cases: list[Case]
    sha256: str


def read_dataset(
    folder: Path, split: str, *, by: str = "part", parts: Sequence[str] = (), limit: int | None = None
) -> Dataset:
    """Reads the cases of one split, in the manifest's order.

    folder: with manifest.csv, or of shards. Shards are unpacked to a temporary folder, which is deleted when the
    process ends; the id of a case is its key, and `by` a field of its JSON.
    by: manifest column with the parts; without a column `part`, the parts are the kinds of the column `subject`.
    parts: parts to read; empty for all. limit: maximum number of cases.
    Raises InvalidData for a missing or invalid manifest, an id that is duplicate or not a file name, a missing file,
    and a selection without cases.
    """
    path = folder / "manifest.csv"
    if not path.exists() and shards.read_manifest(folder) is not None:
        selected = _shard_cases(folder, split, by, tuple(parts), limit)
        return Dataset(folder, split, by, selected, digest(selected))
    rows = _read_manifest(path, by)
    cases: dict[str, Case] = {}
    for row in rows:
        name, part = row["id"] or "", _part(row, by)
        if row["split"] != split or (parts and part not in parts):
            continue
        if name in cases or name in ("", ".", "..") or Path(name).name != name:
            raise InvalidData(f"{path}: ids must be unique file names; got {name!r}.")
        cases[name] = Case(name, part, _image_path(folder / "images", name), folder / "masks" / f"{name}.png")
    if not cases:
        selection = f"split {split!r}" + (f" and part {' or '.join(map(repr, parts))}" if parts else "")
        available = sorted({row["split"] + (f" ({_part(row, by)})" if _part(row, by) else "") for row in rows})
        raise InvalidData(f"{path} has no images of {selection}; it has: {', '.join(available)}.")
    selected = list(cases.values())[:limit]
    return Dataset(folder, split, by, selected, digest(selected))


def _shard_cases(folder: Path, split: str, by: str, parts: tuple[str, ...], limit: int | None) -> list[Case]:
    """Unpacks the records of a split, unmodified. Raises InvalidData."""
    cases, seen = dict[str, Case](), set[str]()
    target = Path(_scratch().name) / hashlib.sha256(f"{folder.resolve()}:{split}".encode()).hexdigest()[:16]
    target.mkdir(exist_ok=True)
    for shard in shards.shard_paths(folder, split):
        for members in shards.read_samples(shard):
            key = next(iter(members)).partition(".")[0]
            try:
                values = json.loads(members[f"{key}.json"])
                image, mask = members[f"{key}.jpg"], members[f"{key}.png"]
                part = str(values[by] or "")
            except (KeyError, ValueError, TypeError) as error:
                raise InvalidData(f"{shard}: the record {key!r} has no {error}.") from error
            seen.add(part)
            if parts and part not in parts:
                continue
            if key in cases:
                raise InvalidData(f"{shard}: the key {key!r} is not unique.")
            cases[key] = case = Case(key, part, target / f"{key}.jpg", target / f"{key}.png")
            case.image.write_bytes(image)
            case.mask.write_bytes(mask)
            if len(cases) == limit:
                return list(cases.values())
    if not cases:
        raise InvalidData(
            f"{folder} has no images of split {split!r} and these parts; it has: {', '.join(sorted(seen))}."
        )
    return list(cases.values())


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """Returns the folder of unpacked shards. The cache keeps it until the process ends."""
    return tempfile.TemporaryDirectory(prefix="maskdrop-evaluation-")


def _part(row: dict[str, str], by: str) -> str:
    """Returns the part that a row of the manifest counts in."""
    if by == "part" and "part" not in row and row.get("subject"):
        return kind_of(row["subject"], row.get("mask_kind") or "")
    return row.get(by) or ""


def _read_manifest(path: Path, by: str) -> list[dict[str, str]]:
    """Reads the rows of a manifest. Raises InvalidData."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error
    columns = set(rows[0]) if rows else set()
    if missing := {"id", "split", *({by} if by != "part" else ())} - columns:
        raise InvalidData(f"{path} has no column {', '.join(sorted(missing))}.")
    return rows


def _image_path(folder: Path, name: str) -> Path:
    """Returns the path of the PNG if it exists, else of the JPEG. Reading reports a missing file."""
    png = folder / f"{name}.png"
    return png if png.exists() else folder / f"{name}.jpg"


def read_alpha(path: Path) -> Pixels:
    """Reads the alpha channel of an image, or the grey values of an image without alpha. HxW uint8, 255 = subject.

    Raises InvalidData, also for colours without alpha and for more than 8 bits.
    """
    try:
        with Image.open(path) as image:
            if "A" in image.getbands():
                return np.array(image.getchannel("A"))
            if image.mode not in ("1", "L"):
                raise InvalidData(f"{path} is not a mask: it must be 8-bit grey or have alpha; got {image.mode}.")
            return np.array(image.convert("L"))
    except FileNotFoundError:
        raise InvalidData(f"{path} does not exist.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidData(f"{path} is damaged or not an image: {error}.") from error


def digest(cases: Sequence[Case]) -> str:
    """Returns a SHA-256 of all ids, images and masks, independent of their order. Raises InvalidData for a missing
    file."""
    total = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.id):
        total.update(hashlib.sha256(case.id.encode()).digest())
        for path in (case.image, case.mask):
            try:
                with path.open("rb") as file:
                    total.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise InvalidData(f"{path} cannot be read ({error.strerror}).") from error
    return total.hexdigest()
