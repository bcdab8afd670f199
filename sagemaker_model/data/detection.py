"""Detection data sets: a folder with images/ and annotations.json in the form of COCO's instances (cocodataset.org,
"Data format", object detection).

annotations.json has `images` (id, file_name, width, height, and our key `split`), `annotations` (image_id, category_id,
bbox = x, y, width, height in pixels, area, iscrowd) and `categories` (id, name). images/ is flat: a file name
identifies an image. `maskdrop data prepare-detection` writes this form from other forms.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskdrop.errors import InputError
from sagemaker_model.data.records import LIMITS, SPLITS, BadRecord, InvalidData, read_file
from sagemaker_model.imaging.pixels import Pixels, decode
from sagemaker_model.weights.files import atomic_write

ANNOTATIONS, IMAGES = "annotations.json", "images"

ROUNDING = 0.02
"""Pixels by which a box may exceed its image: COCO rounds x and width to two decimals each."""

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class DetectionRecord:
    """An image and its boxes. The image is not decoded yet.

    width, height: pixels of the upright image.
    boxes: Nx4 float32, x0, y0, x1, y1 in pixels, x0 < x1 and y0 < y1, inside the image.
    labels: N int64, index into the names of the set.
    crowd: N bool, true for a box around a group, which evaluation ignores and training leaves out.
    areas: N float32, pixels of each instance, by which COCO separates small and large ones; None: area of the box.
    split: train, val or test; "" if unknown.
    """

    file: Path
    width: int
    height: int
    boxes: Floats
    labels: Labels
    crowd: Bools
    areas: Floats | None = None
    split: str = ""

    def read(self) -> Pixels:
        """Decodes the image: HxWx3 uint8, upright sRGB. Raises BadRecord, also for an image of another size."""
        try:
            image = decode(read_file(self.file), LIMITS).rgb
        except InputError as error:
            raise BadRecord(f"unreadable image: {self.file.name}. {error}") from error
        height, width = image.shape[:2]
        if (width, height) != (self.width, self.height):
            raise BadRecord(
                f"image of another size: {self.file.name} is {width} x {height}, not {self.width} x {self.height}"
            )
        return image


@dataclass(frozen=True, slots=True, eq=False)
class DetectionSet:
    """Images with boxes. names: the classes; `DetectionRecord.labels` are indexes into it."""

    names: tuple[str, ...]
    records: tuple[DetectionRecord, ...]

    def only(self, names: Collection[str]) -> DetectionSet:
        """Returns the set with the boxes of these classes alone, and with all images. Raises InvalidData for a name
        that the set lacks."""
        if unknown := set(names) - set(self.names):
            raise InvalidData(f"The set has no class {', '.join(sorted(unknown))}; it has {', '.join(self.names)}.")
        kept = tuple(name for name in self.names if name in set(names))
        index = np.array([kept.index(name) if name in kept else -1 for name in self.names], np.int64)
        return DetectionSet(kept, tuple(_selected(record, index) for record in self.records))


def _selected(record: DetectionRecord, index: Labels) -> DetectionRecord:
    """Returns the record with labels mapped by `index`, without the boxes that it maps to -1."""
    labels = index[record.labels]
    kept = labels >= 0
    areas = None if record.areas is None else record.areas[kept]
    return replace(record, boxes=record.boxes[kept], labels=labels[kept], crowd=record.crowd[kept], areas=areas)


def read_set(folder: Path, split: str | None = None) -> DetectionSet:
    """Reads a data set, or the records of one split (train, val or test). No image is opened.

    folder: has images/ and annotations.json; or the path of a JSON file of that form, with images/ beside it.
    Raises InvalidData for a file that breaks the form, with the row; and for a split without images.
    """
    path = folder if folder.is_file() else folder / ANNOTATIONS
    try:
        content = json.loads(path.read_bytes())
        rows, annotations, categories = content["images"], content["annotations"], content["categories"]
        names = tuple(str(category["name"]) for category in categories)
        index = {category["id"]: number for number, category in enumerate(categories)}
        if len(index) < len(names) or len(set(names)) < len(names):
            raise InvalidData(f"{path}: each category needs an id and a name of its own.")
        boxes_of = defaultdict(list)
        for annotation in annotations:
            boxes_of[annotation["image_id"]].append(annotation)
        if len({row["id"] for row in rows}) < len(rows):
            raise InvalidData(f"{path}: each image needs an id of its own.")
        records = [_record(path, row, boxes_of.pop(row["id"], []), index) for row in rows]
    except OSError as error:
        raise InvalidData(
            f"{path} cannot be read: {error.strerror}. `maskdrop data prepare-detection` writes it."
        ) from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InvalidData(
            f"{path} is not a COCO list of instances ({type(error).__name__}: {error!s:.200})."
        ) from error
    if boxes_of:
        raise InvalidData(f"{path} has annotations of images that it does not list: {', '.join(map(str, boxes_of))}.")
    if twice := [name for name, count in Counter(record.file.name for record in records).items() if count > 1]:
        raise InvalidData(f"{path} lists an image twice: {', '.join(twice)}.")
    chosen = tuple(record for record in records if split in (None, record.split))
    if not chosen:
        available = ", ".join(sorted({record.split or "(none)" for record in records})) or "no images"
        raise InvalidData(
            f"{path} has no images of the split {split!r}; it has: {available}. "
            "`maskdrop data prepare-detection --split 0.8/0.1/0.1` draws the splits."
        )
    return DetectionSet(names, chosen)


def _record(
    path: Path, row: dict[str, Any], annotations: Sequence[dict[str, Any]], index: dict[Any, int]
) -> DetectionRecord:
    """Raises InvalidData; LookupError, TypeError or ValueError for values of a wrong type."""
    name, width, height = str(row["file_name"]), int(row["width"]), int(row["height"])
    split = str(row.get("split", ""))
    if Path(name).name != name:
        raise InvalidData(f"{path}: file_name must be a name in images/, without folders; got {name!r}.")
    if min(width, height) < 1 or split not in (*SPLITS, ""):
        raise InvalidData(f"{path}: {name} has the size {width} x {height} and the split {split!r}.")
    corners = np.array([one["bbox"] for one in annotations], np.float64).reshape(-1, 4)
    corners[:, 2:] += corners[:, :2]
    size = np.array((width, height, width, height))
    inside = (corners >= -ROUNDING).all(1) & (corners <= size + ROUNDING).all(1)
    boxes = np.clip(corners, 0, size).astype(np.float32)
    broken = ~(inside & (boxes[:, :2] < boxes[:, 2:]).all(1))
    if broken.any():
        box = annotations[int(broken.argmax())]["bbox"]
        raise InvalidData(
            f"{path}: the bbox {box} of {name} is empty or outside the image of {width} x {height} pixels."
        )
    areas = np.array([one.get("area", one["bbox"][2] * one["bbox"][3]) for one in annotations], np.float32)
    labels = np.array([index[one["category_id"]] for one in annotations], np.int64)
    crowd = np.array([bool(one.get("iscrowd")) for one in annotations], np.bool_)
    return DetectionRecord(path.parent / IMAGES / name, width, height, boxes, labels, crowd, areas, split)


def write_set(data: DetectionSet, folder: Path) -> None:
    """Writes annotations.json of a set whose image files are in folder/images. The write is atomic."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(data.records, 1):
        row = {"id": number, "file_name": record.file.name, "width": record.width, "height": record.height}
        images.append(row | ({"split": record.split} if record.split else {}))
        sizes = record.boxes[:, 2:].astype(np.float64) - record.boxes[:, :2]
        areas = sizes.prod(1) if record.areas is None else record.areas
        for box, size, label, crowd, area in zip(record.boxes, sizes, record.labels, record.crowd, areas, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label) + 1,
                    "bbox": [*box[:2].tolist(), *size.tolist()],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(data.names, 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    with atomic_write(folder / ANNOTATIONS) as temporary:
        # A single surrogate, which has no UTF-8, is written as its JSON escape.
        text = json.dumps(content, ensure_ascii=False) + "\n"
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
