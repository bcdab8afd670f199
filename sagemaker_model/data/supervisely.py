"""Reader of Supervisely's format (developer.supervisely.com, "Supervisely Annotation Format") and its Person Dataset.

Layout: project/dataset/img/NAME.jpg with project/dataset/ann/NAME.jpg.json, or NAME.json in older exports. An object is
a bitmap (a PNG, compressed with zlib, in base64, with the position of its top left corner) or a polygon (an exterior
and holes). Objects with the same `instance` are parts of one instance.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sagemaker_model.data.masks import Subject, combine_instances, decode_png, draw_polygon, validated_size
from sagemaker_model.data.records import LIMITS, BadRecord, Entry, InvalidData, read_file
from sagemaker_model.imaging.pixels import Pixels

CLASSES = ("person_bmp", "person_poly")
"""Classes of the Person Dataset: people drawn as bitmaps and as polygons."""


def entries(source: Path, classes: Sequence[str] = CLASSES, subject: Subject = "all") -> list[Entry]:
    """Lists every image and annotation of a dataset, a project, or a folder of projects. Raises InvalidData."""
    datasets = [
        path.parent
        for pattern in ("ann", "*/ann", "*/*/ann")
        for path in sorted(source.glob(pattern))
        if (path.parent / "img").is_dir()
    ]
    if not datasets:
        raise InvalidData(f"{source} is not a Supervisely project: it must have a folder with img/ and ann/.")
    return [entry for dataset in datasets for entry in _dataset_entries(source, dataset, classes, subject)]


def _dataset_entries(source: Path, dataset: Path, classes: Sequence[str], subject: Subject) -> list[Entry]:
    images = sorted(path for path in (dataset / "img").iterdir() if not path.name.startswith("."))
    annotations = {path.name.removesuffix(".json"): path for path in sorted((dataset / "ann").glob("*.json"))}
    pairs = []
    for image in images:
        by_name, by_stem = annotations.pop(image.name, None), annotations.pop(image.stem, None)
        pairs.append((image, by_name or by_stem or dataset / "ann" / f"{image.name}.json"))
    pairs += [(dataset / "img" / name, path) for name, path in annotations.items()]
    relative = dataset.relative_to(source)
    return [
        Entry(
            id="_".join((*relative.parts, image.stem)),
            image=image,
            mask=partial(_mask, annotation, classes, subject),
            source=f"Supervisely: {relative / image.name}",
        )
        for image, annotation in pairs
    ]


def _mask(path: Path, classes: Sequence[str], subject: Subject) -> Pixels:
    """Draws the mask of an annotation file. HxW uint8.

    Raises BadRecord, also if one of several objects is damaged: its pixels would count as background.
    """
    try:
        annotation = json.loads(read_file(path))
        height, width = validated_size(annotation["size"]["height"], annotation["size"]["width"])
        instances: dict[Any, list[Pixels]] = {}
        for number, object_ in enumerate(annotation["objects"]):
            if object_["classTitle"] in classes:
                mask = _draw_object(object_, height, width)
                instances.setdefault(object_.get("instance") or number, []).append(mask)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise BadRecord(f"bad annotation: {path.name} ({type(error).__name__}: {error})") from error
    return combine_instances([np.maximum.reduce(parts) for parts in instances.values()], subject, height, width)


def _draw_object(object_: dict[str, Any], height: int, width: int) -> Pixels:
    """Draws one object. Older exports have no geometryType, and an empty field for the other geometry."""
    if object_.get("bitmap"):
        return _draw_bitmap(object_["bitmap"], height, width)
    points = object_["points"]
    mask = draw_polygon(points["exterior"], height, width, continuous=False)
    for hole in points.get("interior") or ():
        mask[draw_polygon(hole, height, width, continuous=False) > 0] = 0
    return mask


def _draw_bitmap(bitmap: dict[str, Any], height: int, width: int) -> Pixels:
    try:
        compressed = base64.b64decode(bitmap["data"], validate=True)
        data = zlib.decompressobj().decompress(compressed, LIMITS.max_bytes)
    except (binascii.Error, zlib.error) as error:
        raise BadRecord(f"bad bitmap: {error}") from error
    image = decode_png(data)
    # Outside pixels are transparent, or 0 in a bitmap without transparency.
    inside = np.asarray(image.convert("RGBA").getchannel("A") if image.has_transparency_data else image.convert("L"))
    x, y = (int(value) for value in bitmap["origin"])
    if x < 0 or y < 0 or y + inside.shape[0] > height or x + inside.shape[1] > width:
        raise BadRecord("bad bitmap: it extends outside the image")
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + inside.shape[0], x : x + inside.shape[1]][inside > 0] = 255
    return mask
