"""COCO (cocodataset.org, "Data format", object detection): instances_*.json and a folder of images.

A segmentation is a list of polygons, or runs (RLE): counts of pixels, down the columns, that are in turn outside and
inside; as numbers, or packed into a string. pycocotools decodes them too, in C that trusts its input: version 2.0.11
ends the process on a coordinate of 3e8, and makes a mask of chance from counts that do not add up.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_model.data.masks import Subject, checked_size, joined, polygon
from sagemaker_model.data.records import SPLITS, BadRecord, Entry, InvalidData
from sagemaker_model.imaging.pixels import Pixels


def entries(source: Path, classes: Sequence[str] = ("person",), subject: Subject = "central") -> list[Entry]:
    """The images of all instances_*.json of a folder, or of its folder annotations/; or of one such file. The split
    is that of the file's name: train2017 is train. Raises InvalidData."""
    inside = (*source.glob("annotations/instances*.json"), *source.glob("instances*.json"))
    files = [source] if source.is_file() else sorted(inside)
    if not files:
        raise InvalidData(f"{source} is no COCO: no instances_*.json is in it, or in its folder annotations/.")
    return [entry for file in files for entry in _of_file(file, classes, subject)]


def _of_file(file: Path, classes: Sequence[str], subject: Subject) -> list[Entry]:
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    name = file.stem.removeprefix("instances").removeprefix("_")
    places = (root / name, root / "images" / name) if name else (root / "images",)
    folder = next((place for place in places if place.is_dir()), root / "images")
    try:
        said = json.loads(file.read_bytes())
        wanted = {str(category["id"]) for category in said["categories"] if category["name"] in classes}
        known = {category["name"] for category in said["categories"]}
        licences = {str(licence["id"]): str(licence["name"]) for licence in said.get("licenses") or ()}
        images, annotations = list(said["images"]), list(said["annotations"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidData(f"{file} is no list of instances of COCO ({type(error).__name__}: {error}).") from error
    if unknown := set(classes) - known:
        raise InvalidData(f"{file} has no class {', '.join(sorted(unknown))}.")
    by_image = defaultdict(list)
    for annotation in annotations:
        if not isinstance(annotation, dict):
            by_image["no image"].append(annotation)
        elif str(annotation.get("category_id")) in wanted:
            by_image[str(annotation.get("image_id"))].append(annotation)
    found = []
    for number, image in enumerate(images):
        said = image if isinstance(image, dict) else {}
        path = str(said.get("file_name", f"image {number} of {file.name}"))
        found.append(
            Entry(
                id=path.rpartition(".")[0] or path,
                picture=folder / path,
                mask=partial(_mask, said, by_image.pop(str(said.get("id")), []), subject),
                split=next((split for split in SPLITS if name.startswith(split)), ""),
                source=f"COCO {name}: {path}",
                licence=licences.get(str(said.get("license")), ""),
            )
        )
    # Annotations of images that are not in the list: they are counted, as what they are.
    orphans = [(f"annotations of {image} in {file.name}", rest) for image, rest in by_image.items()]
    return found + [
        Entry(id=id_, picture=folder / id_, mask=partial(_mask, {}, rest, subject)) for id_, rest in orphans
    ]


def _mask(image: dict[str, Any], annotations: Iterable[dict[str, Any]], subject: Subject) -> Pixels:
    """HxW uint8. Crowds are left out: they outline no one. Raises BadRecord, also where one annotation alone is
    damaged, for its pixels would count as background."""
    try:
        height, width = checked_size(image["height"], image["width"])
        instances = [drawn(one["segmentation"], height, width) for one in annotations if not one.get("iscrowd")]
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise BadRecord(f"bad annotation: {type(error).__name__} {error}") from error
    return joined(instances, subject, height, width)


def drawn(segmentation: Any, height: int, width: int) -> Pixels:
    """A segmentation as a mask, HxW uint8, 0 and 255. Raises BadRecord, and what Python raises of a wrong type."""
    if isinstance(segmentation, dict):
        if list(segmentation["size"]) != [height, width]:
            raise BadRecord(f"mask of another size: runs for (height, width) {segmentation['size']}")
        counts = segmentation["counts"]
        return from_runs(unpacked(counts) if isinstance(counts, str) else counts, height, width)
    if not segmentation:
        raise BadRecord("bad polygon: none")
    return np.maximum.reduce([polygon(np.reshape(flat, (-1, 2)), height, width, between=True) for flat in segmentation])


def from_runs(counts: Sequence[int], height: int, width: int) -> Pixels:
    """The mask of alternating runs, the first outside, down the columns. Raises BadRecord."""
    if any(type(count) is not int or count < 0 for count in counts) or sum(counts) != height * width:
        raise BadRecord(f"bad runs: they do not add up to {height} x {width} pixels")
    values = np.zeros(len(counts), np.uint8)
    values[1::2] = 255
    return np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T)


def unpacked(text: str) -> list[int]:
    """The counts of a packed string. Each character is 48 and six bits, the highest of which says that more follow;
    numbers are in groups of five bits, the lowest first, the last with the sign; from the fourth number on they are
    differences to the one before the last. Raises BadRecord."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadRecord("bad runs: no packed counts")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise BadRecord("bad runs: cut short")
    return counts
