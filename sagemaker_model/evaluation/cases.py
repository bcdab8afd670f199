"""What is evaluated on: a folder of images whose true masks are known.

images/ID.jpg|png    masks/ID.png (8-bit grey, 255 = subject)    manifest.csv (id, split and more columns)
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sagemaker_model.data.records import InvalidData
from sagemaker_model.imaging.pixels import Pixels


@dataclass(frozen=True, slots=True)
class Case:
    """One image and its truth. part: the group it is counted in; "" where the manifest tells none."""

    id: str
    part: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class Dataset:
    """Cases of one split. by: the manifest's column that named their parts. sha256: see `digest`."""

    folder: Path
    split: str
    by: str
    cases: list[Case]
    sha256: str


def read_dataset(
    folder: Path, split: str, *, by: str = "part", parts: Sequence[str] = (), limit: int | None = None
) -> Dataset:
    """The cases of one split, in the manifest's order.

    by: the manifest's column that names the parts. parts: those that are wanted; none is all.
    limit: the first so many. Raises InvalidData for a folder without such a manifest, for an id that is no file name or
    comes twice, for a file that is missing, and where no case is left.
    """
    path = folder / "manifest.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise InvalidData(f"{path} cannot be read: {error}.") from error
    columns = set(rows[0]) if rows else set()
    if missing := {"id", "split", *({by} if by != "part" else ())} - columns:
        raise InvalidData(f"{path} has no column {', '.join(sorted(missing))}.")
    cases: dict[str, Case] = {}
    for row in rows:
        name, part = row["id"] or "", row.get(by) or ""
        if row["split"] != split or (parts and part not in parts):
            continue
        if name in cases or name in ("", ".", "..") or Path(name).name != name:
            raise InvalidData(f"{path} has {name!r} as an id, which is no file name or comes twice.")
        cases[name] = Case(name, part, _image(folder / "images", name), folder / "masks" / f"{name}.png")
    if not cases:
        said = sorted({f"{row['split']}{f' ({part})' if (part := row.get(by)) else ''}" for row in rows})
        raise InvalidData(f"{path} has nothing of split {split!r}{_of(parts)}; it has: {', '.join(said)}.")
    chosen = list(cases.values())[:limit]
    return Dataset(folder, split, by, chosen, digest(chosen))


def _of(parts: Sequence[str]) -> str:
    return f" and part {' or '.join(map(repr, parts))}" if parts else ""


def _image(folder: Path, name: str) -> Path:
    """The JPEG unless there is only a PNG. One that is missing is found out when it is read."""
    png = folder / f"{name}.png"
    return png if png.exists() else folder / f"{name}.jpg"


def read_alpha(path: Path) -> Pixels:
    """HxW uint8, 255 = subject: the alpha of a file that has one, else its grey. Raises InvalidData, also for a file
    that has colours but no alpha, or more than 8 bits."""
    try:
        with Image.open(path) as opened:
            if "A" in opened.getbands():
                return np.array(opened.getchannel("A"))
            if opened.mode not in ("1", "L"):
                raise InvalidData(f"{path} ({opened.mode}) is no mask: 8-bit grey and alpha are read.")
            return np.array(opened.convert("L"))
    except FileNotFoundError:
        raise InvalidData(f"There is no {path}.") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidData(f"{path} is damaged or no image: {error}.") from error


def digest(cases: Sequence[Case]) -> str:
    """SHA-256 over ids, images and masks, whatever their order: the same for the same set alone. Raises InvalidData
    for a file that is missing."""
    whole = hashlib.sha256()
    for case in sorted(cases, key=lambda case: case.id):
        whole.update(hashlib.sha256(case.id.encode()).digest())
        for path in (case.image, case.mask):
            try:
                with path.open("rb") as file:
                    whole.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise InvalidData(f"{path} cannot be read ({error.strerror}).") from error
    return whole.hexdigest()
