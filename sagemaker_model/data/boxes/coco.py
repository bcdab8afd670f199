"""Reader of boxes in COCO's instances form (cocodataset.org, "Data format"); our own data sets have it, too."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from sagemaker_model.data.boxes.base import Box, BoxedEntry, Listing, read_inside, split_of
from sagemaker_model.data.coco import image_folder
from sagemaker_model.data.detection import ANNOTATIONS
from sagemaker_model.data.records import SPLITS, InvalidData


def listing(source: Path) -> Listing:
    """Lists the images of all instances*.json of a folder or its folder annotations/, of its annotations.json, or of
    one such file. Raises InvalidData."""
    patterns = ("annotations/instances*.json", "instances*.json", ANNOTATIONS)
    files = [source] if source.is_file() else [path for one in patterns for path in sorted(source.glob(one))]
    if not files:
        raise InvalidData(
            f"{source} is not COCO: it must have instances*.json, {ANNOTATIONS}, or annotations/ with them."
        )
    parts = [_file_listing(file) for file in files]
    names = dict.fromkeys(name for part in parts for name in part.names)
    return Listing([entry for part in parts for entry in part.entries], tuple(names))


def _file_listing(file: Path) -> Listing:
    """Raises InvalidData for a file that is not a list of instances. Images and annotations are not validated."""
    try:
        content = json.loads(file.read_bytes())
        images, annotations = list(content["images"]), list(content["annotations"])
        names = {str(row["id"]): str(row["name"]) for row in content["categories"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidData(
            f"{file} is not a COCO list of instances ({type(error).__name__}: {error!s:.200})."
        ) from error
    boxes: dict[str, list[Box | str]] = defaultdict(list)
    for annotation in annotations:
        image_id = annotation.get("image_id") if isinstance(annotation, dict) else None
        boxes[str(image_id)].append(_box(annotation, names))
    entries = [_entry(row, number, file, boxes) for number, row in enumerate(images)]
    for image_id, rows in boxes.items():  # those that no image has taken
        fault = f"image not listed: {len(rows)} annotations of {image_id}"
        entries.append(BoxedEntry(name=f"{file.name}-{image_id}", load=bytes, fault=fault))
    return Listing(entries, tuple(names.values()))


def _entry(row: Any, number: int, file: Path, boxes: dict[str, list[Box | str]]) -> BoxedEntry:
    try:
        name, size = str(row["file_name"]), (int(row["width"]), int(row["height"]))
        stated = str(row.get("split", ""))
        rows = boxes.pop(str(row["id"]), [])
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return BoxedEntry(name=f"image {number}", load=bytes, fault=f"bad row: {type(error).__name__} {error}")
    folder = image_folder(file, file.stem.removeprefix("instances").removeprefix("_"))
    return BoxedEntry(
        name=name,
        load=partial(read_inside, folder.parent, folder / name),
        boxes=rows,
        size=size,
        split=stated if stated in SPLITS else split_of(file),
    )


def _box(annotation: Any, names: dict[str, str]) -> Box | str:
    try:
        label = names.get(str(annotation["category_id"]))
        if label is None:
            return f"unknown class: {annotation['category_id']}"
        x, y, width, height = (float(value) for value in annotation["bbox"])
        area = annotation.get("area")
        return Box(
            label,
            (x, y, x + width, y + height),
            bool(annotation.get("iscrowd")),
            None if area is None else float(area),
        )
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        return f"bad row: {type(error).__name__} {error}"
