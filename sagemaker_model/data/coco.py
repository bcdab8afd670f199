"""Reader of COCO (cocodataset.org, "Data format", object detection): instances_*.json and a folder of images.

A segmentation is a list of polygons, or RLE (run-length encoding): pixel counts down the columns, alternately outside
and inside, as numbers or packed into a string. pycocotools decodes both, in C code that does not validate its input:
version 2.0.11 crashes the process on a coordinate of 3e8, and returns a random mask for counts that do not add up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_model.data.masks import Subject, combine_instances, draw_polygon, validated_size
from sagemaker_model.data.records import SPLITS, BadRecord, Entry, InvalidData
from sagemaker_model.imaging.pixels import Pixels


def entries(source: Path, classes: Sequence[str] = ("person",), subject: Subject = "central") -> list[Entry]:
    """Lists the images of all instances_*.json of a folder or its folder annotations/, or of one such file.

    The file name states the split: instances_train2017.json is train. Raises InvalidData.
    """
    matches = (*source.glob("annotations/instances*.json"), *source.glob("instances*.json"))
    files = [source] if source.is_file() else sorted(matches)
    if not files:
        raise InvalidData(f"{source} is not COCO: it must have instances_*.json, or a folder annotations/ with them.")
    return [entry for file in files for entry in _file_entries(file, classes, subject)]


@dataclass(frozen=True, slots=True)
class _Instances:
    """The content of an instances_*.json. Images and annotations are not validated.

    classes: names of all classes. selected: ids of the selected classes. licences: names by id.
    """

    images: list[Any]
    annotations: list[Any]
    classes: set[str]
    selected: set[str]
    licences: dict[str, str]


def _file_entries(file: Path, classes: Sequence[str], subject: Subject) -> list[Entry]:
    """Lists the images of one instances_*.json, then annotations of images that are not in its list, which raise
    BadRecord when they are loaded. Raises InvalidData."""
    name = file.stem.removeprefix("instances").removeprefix("_")
    folder = image_folder(file, name)
    instances = _read_instances(file, classes)
    annotations = _annotations_by_image(instances)

    def image_entry(number: int, row: Any) -> Entry:
        image = row if isinstance(row, dict) else {}
        path = str(image.get("file_name", f"image {number} of {file.name}"))
        return Entry(
            id=path.rpartition(".")[0] or path,
            image=folder / path,
            mask=partial(_mask, image, annotations.pop(str(image.get("id")), []), subject),
            split=next((split for split in SPLITS if name.startswith(split)), ""),
            source=f"COCO {name}: {path}",
            licence=instances.licences.get(str(image.get("license")), ""),
        )

    def orphan_entry(image_id: str, rows: list[Any]) -> Entry:
        id_ = f"annotations of {image_id} in {file.name}"
        return Entry(id=id_, image=folder / id_, mask=partial(_mask, {}, rows, subject))

    listed = [image_entry(number, row) for number, row in enumerate(instances.images)]
    return listed + [orphan_entry(image_id, rows) for image_id, rows in annotations.items()]


def image_folder(file: Path, name: str) -> Path:
    """Returns the folder of a file's images: NAME/ or images/NAME/ if it exists, else images/."""
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    candidates = (root / name, root / "images" / name) if name else ()
    return next((folder for folder in candidates if folder.is_dir()), root / "images")


def _read_instances(file: Path, classes: Sequence[str]) -> _Instances:
    """Parses an instances_*.json. Raises InvalidData, also for a class that the file does not have."""
    try:
        content = json.loads(file.read_bytes())
        categories = content["categories"]
        instances = _Instances(
            images=list(content["images"]),
            annotations=list(content["annotations"]),
            classes={category["name"] for category in categories},
            selected={str(category["id"]) for category in categories if category["name"] in classes},
            licences={str(licence["id"]): str(licence["name"]) for licence in content.get("licenses") or ()},
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidData(f"{file} is not a COCO list of instances ({type(error).__name__}: {error}).") from error
    if unknown := set(classes) - instances.classes:
        raise InvalidData(f"{file} has no class {', '.join(sorted(unknown))}.")
    return instances


def _annotations_by_image(instances: _Instances) -> dict[str, list[Any]]:
    """Groups the annotations of the selected classes by image id; invalid annotations under "no image"."""
    groups = defaultdict(list)
    for annotation in instances.annotations:
        if not isinstance(annotation, dict):
            groups["no image"].append(annotation)
        elif str(annotation.get("category_id")) in instances.selected:
            groups[str(annotation.get("image_id"))].append(annotation)
    return groups


def _mask(image: dict[str, Any], annotations: Iterable[dict[str, Any]], subject: Subject) -> Pixels:
    """Draws the mask of an image, HxW uint8, without annotations of crowds, which outline no single instance.

    Raises BadRecord, also if one of several annotations is damaged: its pixels would count as background.
    """
    try:
        height, width = validated_size(image["height"], image["width"])
        masks = [segmentation_mask(one["segmentation"], height, width) for one in annotations if not one.get("iscrowd")]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise BadRecord(f"bad annotation: {type(error).__name__} {error}") from error
    return combine_instances(masks, subject, height, width)


def segmentation_mask(segmentation: Any, height: int, width: int) -> Pixels:
    """Draws a segmentation, HxW uint8, 0 and 255. Raises BadRecord; ValueError, LookupError or TypeError for values of
    a wrong type."""
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise BadRecord(f"mask of another size: RLE for (height, width) {segmentation['size']}")
        counts = segmentation["counts"]
        return rle_mask(unpack_rle(counts) if isinstance(counts, str) else counts, height, width)
    if not segmentation:
        raise BadRecord("bad polygon: none")
    polygons = [draw_polygon(np.reshape(flat, (-1, 2)), height, width, continuous=True) for flat in segmentation]
    mask: Pixels = np.maximum.reduce(polygons)
    return mask


def rle_mask(counts: Sequence[int], height: int, width: int) -> Pixels:
    """Decodes RLE counts down the columns, alternately outside and inside, HxW uint8. Raises BadRecord."""
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != height * width:
        raise BadRecord(f"bad RLE: counts do not add up to {height} x {width} pixels")
    values = np.zeros(len(counts), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T)


def unpack_rle(text: str) -> list[int]:
    """Decodes the counts of a packed RLE string. Raises BadRecord.

    Each character is 48 plus six bits: five bits of a number, and the highest bit, which is set if more bits follow.
    Numbers are little-endian and signed. From the fourth number on they are differences to the second last number.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadRecord("bad RLE: not packed counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise BadRecord("bad RLE: truncated")
    return counts
